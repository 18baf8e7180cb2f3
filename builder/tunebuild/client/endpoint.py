"""Asks a running endpoint the trained questions, over HTTP as any client would."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tunebuild.client.checks import Check
from tunebuild.errors import fail
from tunebuild.prompt import Message
from tunebuild.prompt.messages import split_tools

# Few enough to stay below any sensible queue limit, enough to have the server batch.
_AT_ONCE = 8
_RETRIES = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """What the endpoint said to a check.

    Attributes:
        check: the question.
        text: the answer.
        reasoning: what it says apart from that.
        prompt_tokens: length of the prompt as the endpoint counted it.
        seconds: time to the whole answer.
        calls: names and arguments of the tools that it calls.
    """

    check: Check
    text: str
    reasoning: str
    prompt_tokens: int
    seconds: float
    calls: tuple[tuple[str, Any], ...] = ()

    @property
    def exact(self) -> bool:
        """Word for word what was trained: reasoning, answer and calls each."""
        said = (self.text, self.reasoning, self.calls)
        return said == (self.check.expected, self.check.reasoning, _functions(self.check.calls))

    @property
    def same_prompt(self) -> bool:
        """Whether the endpoint fed the model as many tokens as the contract says."""
        return self.prompt_tokens == self.check.prompt_tokens


def ask(url: str, checks: Sequence[Check], done: Callable[[int], None] = lambda _: None) -> list[Answer]:
    """Ask all checks at temperature 0.

    Args:
        url: the endpoint's root, e.g. ``http://127.0.0.1:8080``.
        checks: what to ask.
        done: told the number of answers so far.

    Raises:
        TunebuildError: the endpoint cannot be reached, is not ready, or refuses a question.
    """
    model = _model(url)
    answers = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for number, answer in enumerate(pool.map(lambda c: _ask_one(url, model, c), checks), 1):
            answers.append(answer)
            done(number)
    return answers


def ask_question(url: str, question: str) -> str:
    """One question, one answer, with the endpoint's own defaults."""
    messages = [{"role": "user", "content": question}]
    reply = _call(url, "/v1/chat/completions", {"model": _model(url), "messages": messages})
    return str(reply["choices"][0]["message"]["content"])


def _model(url: str) -> str:
    return str(_call(url, "/v1/models")["data"][0]["id"])


def _ask_one(url: str, model: str, check: Check) -> Answer:
    started = time.monotonic()
    tools, turns = split_tools(check.messages)
    request = {"model": model, "messages": [_as_request(turn) for turn in turns], "temperature": 0}
    reply = _call(url, "/v1/chat/completions", {**request, **({"tools": tools} if tools else {})})
    message = reply["choices"][0]["message"]
    return Answer(
        check,
        message["content"] or "",
        message.get("reasoning_content") or "",
        reply["usage"]["prompt_tokens"],
        time.monotonic() - started,
        _functions(message.get("tool_calls") or ()),
    )


def _as_request(turn: Message) -> Message:
    """A trained turn as clients send it: arguments of calls are JSON in a text."""
    if not turn.get("tool_calls"):
        return turn
    calls = [
        {
            "id": str(call.get("id", f"call{number:05}")),
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
        }
        for number, (call, (name, arguments)) in enumerate(
            zip(turn["tool_calls"], _functions(turn["tool_calls"]), strict=True)
        )
    ]
    return {**turn, "tool_calls": calls}


def _functions(calls: Sequence[Message]) -> tuple[tuple[str, Any], ...]:
    """Names and arguments of calls, in the rows' form or the API's."""
    functions = [call.get("function", call) for call in calls]
    return tuple((function["name"], _arguments(function.get("arguments"))) for function in functions)


def _arguments(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _key() -> dict[str, str]:
    key = os.environ.get("TUNEBUILD_API_KEY", "")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _call(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(  # noqa: S310 - the user names the endpoint
        url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **_key()},
    )
    for attempt in range(_RETRIES):
        try:
            with urllib.request.urlopen(request, timeout=300) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            if error.code == 429 and attempt + 1 < _RETRIES:
                time.sleep(float(error.headers.get("Retry-After", "1")))
                continue
            raise fail("endpoint-refused", f"{url}{path} answered {error.code}: {text.strip()}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise fail(
                "endpoint-unreachable", f"cannot ask {url}: {reason}", "start it with 'tunebuild run SPEC'"
            ) from None
    raise AssertionError("unreachable")
