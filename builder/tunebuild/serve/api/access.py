"""How often one client may ask."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from tunebuild.serve.api.errors import ApiError

_MOST_CLIENTS = 10_000


class RateLimit:
    """So many requests a minute and key, or address where no key is asked for; all at once or spread.

    Args:
        app: the application.
        per_minute: requests.
        clock: seconds.
    """

    def __init__(self, app: ASGIApp, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._most = per_minute
        self._clock = clock
        self._clients: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            wait = self.take(_client(scope))
            if wait:
                message = f"more than {self._most} requests a minute with this key"
                refused = ApiError(429, message, "rate_limit_exceeded", retry_after=math.ceil(wait))
                await refused.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def take(self, client: bytes) -> float:
        """Count a request; the seconds to wait if it is one too many, else 0."""
        now = self._clock()
        left, seen = self._clients.pop(client, (float(self._most), now))
        left = min(self._most, left + (now - seen) * self._most / 60)
        allowed = left >= 1
        self._clients[client] = (left - allowed, now)
        # Who has not asked for longest has the fullest measure anyway.
        if len(self._clients) > _MOST_CLIENTS:
            self._clients.popitem(last=False)
        return 0.0 if allowed else (1 - left) * 60 / self._most


def _client(scope: Scope) -> bytes:
    """Who asks: a key that has been checked, else an address."""
    if key := dict(scope["headers"]).get(b"authorization", b""):
        return key
    return str((scope.get("client") or ("",))[0]).encode()
