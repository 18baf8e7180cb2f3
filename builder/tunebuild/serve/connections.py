"""The HTTP server: bounded connections, bounded waiting for headers, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import threading
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tunebuild.serve.service import Service

CONNECTIONS = 1024
"""Open connections; one more is closed at once."""
HEADER_SECONDS = 20.0
"""A connection that has sent no whole request head by then is closed."""
IDLE_SECONDS = 15
"""A connection may wait that long between two requests."""
LAME_DUCK_SECONDS = 2.0
"""After SIGTERM the port still answers, with 503, until load balancers have seen ``/readyz``."""


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with an end to waiting for a request's head."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, if there is room."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.close()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Bytes of a head or a body."""
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._forget_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        waiting = self.cycle is None or self.cycle.response_complete
        if not waiting or self.transport.is_closing():
            self._forget_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """uvicorn's server, which after SIGTERM refuses with 503 for a while, drains, and exits with 0."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._ending = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, the second one hurries it."""
        self._service.drain()
        if self._ending:
            self.should_exit = self.force_exit = True
            return
        self._ending = True
        # A signal is how this server is meant to end, so it is not raised again: the exit status is 0.
        threading.Thread(target=self._end, name="drain", daemon=True).start()

    def _end(self) -> None:
        self._service.wait_idle(LAME_DUCK_SECONDS, self._service.bundle.limits.drain_seconds)
        self.should_exit = True


def make_server(app: Any, service: Service, host: str, port: int) -> Server:
    """The server of a service, not running yet."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        timeout_keep_alive=IDLE_SECONDS,
        # What runs longer than the service waits has been told so; this is for what does not listen.
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=64 * 1024,
        server_header=False,
    )
    return Server(config, service)
