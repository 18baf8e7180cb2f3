"""The HTTP server: bounded connections, bounded waiting for headers, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import os
import threading
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tunebuild.serve.contract import CLOSE_SECONDS, LAME_DUCK_SECONDS
from tunebuild.serve.service import Service

CONNECTIONS = 1024
"""Open connections; one more is closed at once."""
HEADER_SECONDS = 20.0
"""A connection that has sent no whole request head by then is closed."""
HEADER_BYTES = 64 * 1024
"""A request line and headers that are longer are refused with 431."""
IDLE_SECONDS = 15
"""A connection may wait that long between two requests."""


_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 20\r\nconnection: close\r\n\r\n"
    b"headers are too long"
)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with bounds to how many connect, and to how long and how large a head may be."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, if there is room."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.close()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Bytes of a head or a body."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        # What is behind the end of a head came with it in one read, whose size is bounded.
        if self._in_head and self._head_bytes > HEADER_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()
        self._await_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """So is the request; another head may follow."""
        self._in_head = True
        super().on_message_complete()

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
        timeout_graceful_shutdown=CLOSE_SECONDS,
        server_header=False,
        ssl_certfile=os.environ.get("TUNEBUILD_TLS_CERTIFICATE") or None,
        ssl_keyfile=os.environ.get("TUNEBUILD_TLS_KEY") or None,
    )
    return Server(config, service)
