"""What a request says about tools: what the template is given, and how the answer is made and parsed."""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunebuild.prompt import Renderer
from tunebuild.prompt.call_grammar import call_grammar
from tunebuild.prompt.call_parser import CallBegun, CallParser, PlainText
from tunebuild.prompt.calls import CallFormat
from tunebuild.prompt.tools import plain_tools
from tunebuild.serve.api.errors import ApiError
from tunebuild.serve.api.schemas import ChatRequest, NamedChoice
from tunebuild.serve.engines.request import Constraint, Finish

_LETTERS = string.ascii_letters + string.digits
#: What ``finish_reason`` says of an answer that calls tools.
TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class ToolUse:
    """How an answer may use tools.

    Attributes:
        tools: what the template is given.
        call_format: what the answer is parsed by; ``None`` where it is text alone.
        parallel: whether it may have several calls.
        constraint: what its text must match.
    """

    tools: Sequence[Mapping[str, Any]] = ()
    call_format: CallFormat | None = None
    parallel: bool = True
    constraint: Constraint | None = None

    def parts(self) -> MessageParts | None:
        """Splits one answer."""
        found = self.call_format
        return None if found is None else MessageParts(CallParser(found, parallel=self.parallel))


def tool_use(renderer: Renderer, body: ChatRequest) -> ToolUse:
    """What a request says about tools, and about the text of its answer.

    Raises:
        ApiError: 400; tools where the trained template prints none, or a choice that cannot be made.
    """
    wanted, choice = body.constraint(), body.tool_choice
    if not body.tools:
        if choice not in (None, "none", "auto"):
            raise ApiError(
                400, "'tool_choice' asks for a call, and there are no tools", "invalid_value", "tool_choice"
            )
        return ToolUse(constraint=wanted)
    if (found := renderer.call_format) is None:
        raise ApiError(
            400, f"this model takes no tools: {renderer.no_calls}", "unsupported_parameter", "tools"
        )
    if choice == "none":
        # What is not listed is not called.
        return ToolUse(constraint=wanted)
    tools = plain_tools([tool.raw() for tool in body.tools])
    strict = frozenset(tool.function.name for tool in body.tools if tool.function.strict)
    parallel = body.parallel_tool_calls is not False
    callable_ = tools
    if isinstance(choice, NamedChoice):
        callable_ = [tool for tool in tools if tool["function"]["name"] == choice.function.name]
        if not callable_:
            message = f"'tool_choice' names '{choice.function.name}', which is none of the tools"
            raise ApiError(400, message, "invalid_value", "tool_choice")
        parallel = False
    constraint = None
    if choice in (None, "auto"):
        if wanted is not None:
            text = call_grammar(
                found, renderer.tokenizer, tools, parallel=parallel, strict=strict, otherwise=wanted.text
            )
            constraint = Constraint("lark", text)
    else:
        text = call_grammar(found, renderer.tokenizer, callable_, parallel=parallel, strict=strict)
        constraint = Constraint("lark", text)
    return ToolUse(tools, found, parallel, constraint)


class MessageParts:
    """An answer as OpenAI's deltas of a message: text, and calls of tools."""

    def __init__(self, parser: CallParser) -> None:
        self._parser = parser
        self._called = False

    def push(self, text: str) -> list[dict[str, Any]]:
        """Deltas of a piece of text."""
        return [self._delta(part) for part in self._parser.push(text)]

    def flush(self) -> list[dict[str, Any]]:
        """Deltas of what was held back."""
        return [self._delta(part) for part in self._parser.flush()]

    def finish(self, finish: Finish | None) -> str | None:
        """Why the answer ended, as clients are told."""
        return TOOL_CALLS if self._called and finish is Finish.STOP else finish

    def _delta(self, part: Any) -> dict[str, Any]:
        if isinstance(part, PlainText):
            return {"content": part.text}
        if isinstance(part, CallBegun):
            self._called = True
            head = {"id": part.call_id or _call_id(), "type": "function"}
            return {
                "tool_calls": [
                    {"index": part.index, **head, "function": {"name": part.name, "arguments": ""}}
                ]
            }
        return {"tool_calls": [{"index": part.index, "function": {"arguments": part.text}}]}


def joined(deltas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The message that deltas add up to. Text that is not there is null beside calls, else empty."""
    texts: list[str] = []
    reasoning = "".join(delta.get("reasoning_content", "") for delta in deltas)
    apart = {"reasoning_content": reasoning} if reasoning else {}
    calls: list[dict[str, Any]] = []
    for delta in deltas:
        texts.append(delta.get("content", ""))
        for call in delta.get("tool_calls", ()):
            if call["index"] == len(calls):
                calls.append({"id": call["id"], "type": "function", "function": dict(call["function"])})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    text = "".join(texts)
    return {"content": text or None, **apart, "tool_calls": calls} if calls else {"content": text, **apart}


def _call_id() -> str:
    # Nine letters and digits: some templates take no other ids back.
    return "".join(secrets.choice(_LETTERS) for _ in range(9))
