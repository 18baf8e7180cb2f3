"""How an endpoint conducts itself: its contract with clients, under too many requests, when one hangs up."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tunebuild.errors import TunebuildError, fail

_SECONDS = 120.0
_AT_ONCE = 64
_GONE_WITHIN = 15.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried.

    Attributes:
        group: ``contract``, ``overload``, ``cancel`` and so on.
        name: what should hold.
        problem: what was seen instead; empty if it holds.
        detail: what was seen.
        seconds: how long it took.
    """

    group: str
    name: str
    problem: str = ""
    detail: str = ""
    seconds: float = 0.0


class _Problem(Exception):
    """What was seen instead of what should hold."""


@dataclass(frozen=True, slots=True)
class Server:
    """An endpoint as plain HTTP."""

    url: str
    key: str = ""

    def open(
        self, method: str, path: str, body: bytes | Mapping[str, Any] | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Ask; the answer has to be read, and the connection closed."""
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=_SECONDS)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        connection.request(method, parts.path.rstrip("/") + path, data, headers)
        return connection, connection.getresponse()

    def ask(
        self, method: str, path: str, body: bytes | Mapping[str, Any] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body (JSON where it is) and headers, in lower case."""
        connection, response = self.open(method, path, body)
        text = response.read()
        connection.close()
        try:
            value = json.loads(text)
        except ValueError:
            value = text.decode("utf-8", "replace")
        return response.status, value, {name.lower(): text for name, text in response.headers.items()}


def check_conduct(server: Server, *, overload: bool = True) -> Iterator[Finding]:
    """Try everything that needs no say over the process; a finding each, as it is known.

    Args:
        server: ready.
        overload: whether to ask more at once than it takes, which others who use it would notice.
    """
    checks: tuple[tuple[str, str, Callable[[Server], str]], ...] = (
        ("contract", "the one model is listed and found by its name", _models),
        ("contract", "another model is not found", _other_model),
        ("contract", "an unknown field is refused by its name", _unknown_field),
        ("contract", "a body that is no JSON is refused", _no_json),
        ("contract", "a prompt that does not fit is refused", _too_long),
        ("contract", "a streamed answer is the whole one", _streamed),
        (
            "overload",
            "too many requests are refused with 429 and Retry-After, and all others answered",
            _overload,
        ),
        ("cancel", "an answer ends when its client hangs up", _cancel),
    )
    for group, name, check in checks:
        if group == "overload" and not overload:
            continue
        started = time.monotonic()
        problem = detail = ""
        try:
            detail = check(server)
        except (_Problem, TunebuildError) as found:
            problem = str(found)
        except (OSError, http.client.HTTPException, KeyError, TypeError, IndexError, ValueError) as error:
            problem = f"the answer cannot be read: {type(error).__name__}: {error}"
        yield Finding(group, name, problem, detail, time.monotonic() - started)


def model_of(server: Server) -> str:
    """Name of the served model."""
    return str(server.ask("GET", "/v1/models")[1]["data"][0]["id"])


def begin_answer(server: Server, tokens: int) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """An answer that has begun to come and is not read yet.

    Raises:
        TunebuildError: ``endpoint-refused``.
    """
    connection, response = server.open("POST", "/v1/completions", _long(server, tokens, stream=True))
    if response.status != 200:
        raise fail("endpoint-refused", f"a stream was refused with {response.status}")
    response.readline()
    return connection, response


def end_answer(connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> str:
    """The rest of a streamed answer; why it is not whole, or nothing."""
    try:
        text = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return f"the stream broke off: {type(error).__name__}"
    finally:
        connection.close()
    if '"error"' in text:
        return "it was ended with an error"
    return "" if "data: [DONE]" in text else "the stream ended without its last event"


def _long(server: Server, tokens: int, **more: Any) -> dict[str, Any]:
    return {
        "model": model_of(server), "prompt": "a", "max_tokens": tokens, "temperature": 1.0,
        "top_p": 1.0, **more,
    }  # fmt: skip


def _chat(server: Server, **more: Any) -> dict[str, Any]:
    return {
        "model": model_of(server),
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 8,
        **more,
    }


def _expect(answer: tuple[int, Any, Mapping[str, str]], status: int) -> Any:
    found, body, _ = answer
    if found != status:
        raise _Problem(f"status {found} instead of {status}")
    if status >= 400 and set(body["error"]) != {"message", "type", "param", "code"}:
        raise _Problem(f"the error has other fields: {sorted(body['error'])}")
    return body


def _models(server: Server) -> str:
    listed = _expect(server.ask("GET", "/v1/models"), 200)["data"]
    if len(listed) != 1:
        raise _Problem(f"{len(listed)} models are listed")
    name = listed[0]["id"]
    if _expect(server.ask("GET", f"/v1/models/{name}"), 200)["id"] != name:
        raise _Problem("it is found by another name")
    return str(name)


def _other_model(server: Server) -> str:
    body = _expect(
        server.ask("POST", "/v1/chat/completions", _chat(server) | {"model": "no-such-model"}), 404
    )
    return str(body["error"]["code"])


def _unknown_field(server: Server) -> str:
    error = _expect(server.ask("POST", "/v1/chat/completions", _chat(server, no_such_field=1)), 400)["error"]
    if "no_such_field" not in error["message"]:
        raise _Problem("the message does not name it")
    return str(error["message"])


def _no_json(server: Server) -> str:
    return str(_expect(server.ask("POST", "/v1/chat/completions", b'{"model"'), 400)["error"]["code"])


def _too_long(server: Server) -> str:
    error = _expect(server.ask("POST", "/v1/completions", _long(server, 10**9)), 400)["error"]
    return str(error["code"])


def _streamed(server: Server) -> str:
    body = {**_long(server, 16), "temperature": 0, "top_p": 1}
    whole = _expect(server.ask("POST", "/v1/completions", body), 200)["choices"][0]
    connection, response = server.open("POST", "/v1/completions", {**body, "stream": True})
    lines = response.read().decode().splitlines()
    connection.close()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    text = "".join(event["choices"][0]["text"] for event in events if event.get("choices"))
    if text != whole["text"]:
        raise _Problem("its text differs")
    ends = [event["choices"][0]["finish_reason"] for event in events if event.get("choices")]
    if ends[-1] != whole["finish_reason"]:
        raise _Problem(f"it ends by '{ends[-1]}', the whole one by '{whole['finish_reason']}'")
    return f"{len(events)} events"


def _overload(server: Server) -> str:
    """More and more at once, until some are refused."""
    body = _long(server, 16)
    count = _AT_ONCE
    while True:
        with ThreadPoolExecutor(count) as pool:
            answers = list(pool.map(lambda _: server.ask("POST", "/v1/completions", body), range(count)))
        odd = {status for status, _, _ in answers} - {200, 429}
        if odd:
            raise _Problem(f"{count} at once: status {sorted(odd)}")
        refused = [headers for status, _, headers in answers if status == 429]
        if any(not (headers.get("retry-after") or "").isdigit() for headers in refused):
            raise _Problem("429 without Retry-After")
        if refused or count >= 8 * _AT_ONCE:
            break
        count *= 2
    _expect(server.ask("POST", "/v1/completions", body), 200)
    return f"{count} at once, {len(refused)} refused" + ("" if refused else ": it has room for more")


def _cancel(server: Server) -> str:
    connection, response = begin_answer(server, 64)
    response.close()
    connection.close()
    started = time.monotonic()
    while time.monotonic() - started < _GONE_WITHIN:
        text = str(server.ask("GET", "/metrics")[1])
        running = [
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith("tunebuild_requests_running")
        ]
        if not running:
            return "not seen: /metrics tells of no running requests"
        if running == [0.0]:
            return f"after {time.monotonic() - started:.1f} s"
        time.sleep(0.05)
    raise _Problem(f"it still ran after {_GONE_WITHIN:.0f} s")
