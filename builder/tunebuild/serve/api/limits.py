"""What a request may weigh, decided before a byte of it is parsed; and who is asking."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Collection, MutableMapping
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunebuild.serve.api.errors import ApiError
from tunebuild.serve.contract import LIVE, METRICS, READY
from tunebuild.serve.metrics import Metrics

BODY_SECONDS = 60.0
"""A body that has not arrived by then never will."""
_OPEN = frozenset((LIVE, READY, METRICS))
_ID = re.compile(r"[\w.:-]{1,128}")
_log = logging.getLogger("tunebuild.access")


class BodyLimit:
    """Reads a body whole before the application sees it, and refuses one that is too large or too slow.

    Args:
        app: the application.
        most: bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._read(scope, receive), BODY_SECONDS)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        except TimeoutError:
            late = ApiError(408, f"the body did not arrive within {BODY_SECONDS:.0f} s", "request_timeout")
            await late.response()(scope, receive, send)
            return
        if body is None:
            return  # the client has gone
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._most:
            raise self._too_large()
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._most:
                raise self._too_large()
            more = message.get("more_body", False)
        return b"".join(parts)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body may have at most {self._most:,} bytes", "request_too_large")


class Keys:
    """The keys that clients may come with; a mounted file is read again when it changes.

    Args:
        file: one key a line; lines that begin with ``#`` are comments.
        text: more keys, separated by commas or white space.
    """

    def __init__(self, file: Path | None, text: str = "") -> None:
        self._file, self._fixed = file, tuple(filter(None, re.split(r"[\s,]+", text)))
        self._seen: tuple[int, int] | None = None
        self._read: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether a key is asked for at all."""
        return bool(self._file or self._fixed)

    def accepts(self, given: str) -> bool:
        """Whether it is one of the keys; takes as long for one that is nearly right."""
        matches = [hmac.compare_digest(given.encode(), key.encode()) for key in self._all()]
        return any(matches)

    def _all(self) -> tuple[str, ...]:
        if self._file is not None:
            try:
                state = self._file.stat()
                if (seen := (state.st_mtime_ns, state.st_ino)) != self._seen:
                    lines = (line.strip() for line in self._file.read_text("utf-8").splitlines())
                    self._read = tuple(line for line in lines if line and not line.startswith("#"))
                    self._seen = seen
            except OSError as error:
                _log.error("%s cannot be read, the keys stay as they were: %s", self._file, error)
        return self._fixed + self._read


class RequireKey:
    """Asks for ``Authorization: Bearer KEY`` on everything but health, metrics and what else is open."""

    def __init__(self, app: ASGIApp, keys: Keys, more: Collection[str] = ()) -> None:
        self._app, self._keys, self._open = app, keys, _OPEN.union(more)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and self._keys.required and scope["path"] not in self._open:
            given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            scheme, _, key = given.partition(" ")
            if scheme.lower() != "bearer" or not self._keys.accepts(key.strip()):
                said = "a wrong key" if given else "no key"
                refused = ApiError(401, f"{said}: send 'Authorization: Bearer KEY'", "invalid_api_key")
                await refused.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Observe:
    """Gives each request an id, counts it, and logs it without a word of its content."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        started, status = time.monotonic(), 499  # if no answer is begun, the client hung up

        async def observed(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            if scope["path"] not in _OPEN:
                seconds = time.monotonic() - started
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, str(status)).inc()
                self._metrics.seconds.labels(route).observe(seconds)
                fields = {"id": request_id, "route": route, "status": status, "seconds": seconds}
                _log.info("%s %s", scope["method"], route, extra={"fields": fields})
