"""Debian's docker-registry on a free port of the loopback interface, and a proxy that misbehaves."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

_CONFIG = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
log: {{level: error}}
"""


@dataclass(frozen=True)
class Fault:
    """What becomes of a request: an answer in the registry's stead, or a connection that is cut."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    cut_after: int = -1


@dataclass(frozen=True)
class Request:
    """A request as the proxy sees it, before its body is read."""

    method: str
    path: str
    length: int
    headers: dict[str, str]


Decide = Callable[[Request], Fault | None]


@contextmanager
def docker_registry(root: Path) -> Iterator[str]:
    """Its host and port. On CI it must be installed; elsewhere the test is skipped without it."""
    if shutil.which("docker-registry") is None and not os.environ.get("CI"):
        pytest.skip("docker-registry is not installed")
    port = free_port()
    root.mkdir(parents=True, exist_ok=True)
    config = root.with_name(f"{root.name}.yml")
    config.write_text(_CONFIG.format(root=root, port=port))
    with subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait_for(port)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


class FaultyProxy:
    """Passes requests on to a registry, unless ``decide`` has other plans. ``requests`` lists what came.

    Args:
        upstream: host and port of the registry.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.decide: Decide = lambda _: None
        self.requests: list[Request] = []
        self.received = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_request(self) -> None:
                proxy._handle(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def wrap(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on."""
        # Not in the thread that accepts: a handshake that fails must not end it.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def sent(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(handler.command, handler.path, length, headers)
        self.requests.append(request)
        fault = self.decide(request)
        if fault and fault.status:
            # Read none of the body, as a proxy does that refuses it.
            handler.close_connection = length > 0
            self._reply(handler, fault.status, fault.headers, fault.body)
            return
        cut = fault.cut_after if fault else -1
        upstream = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            upstream.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            upstream.putheader("Host", self.host)
            for name, value in handler.headers.items():
                if name.lower() not in ("host", "connection", "authorization"):
                    upstream.putheader(name, value)
            upstream.endheaders()
            left = length
            while left:
                block = handler.rfile.read(min(left, 16384 if cut < 0 else min(16384, max(1, cut))))
                if not block:
                    break
                upstream.send(block)
                left -= len(block)
                self.received += len(block)
                if cut >= 0 and length - left >= cut:
                    upstream.close()
                    _cut(handler)
                    return
            answer = upstream.getresponse()
            body = b"" if handler.command == "HEAD" else answer.read()
            kept = {
                k: v for k, v in answer.getheaders() if k.lower() not in ("connection", "transfer-encoding")
            }
            if cut >= 0 and not length:
                kept["Content-Length"] = str(len(body))
                self._reply(handler, answer.status, kept, body[:cut])
                _cut(handler)
                return
            self._reply(handler, answer.status, kept, body)
        except OSError:
            _cut(handler)
        finally:
            upstream.close()

    def _reply(
        self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        handler.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
        handler.wfile.flush()


class TokenGate:
    """Decides as a registry with token authentication does.

    Args:
        host: tells the proxy's own host, where tokens are fetched.
        user, password: who may fetch them; with ``refresh`` an identity token instead.
        lasting: requests that a token is good for.
    """

    def __init__(
        self, host: Callable[[], str], user: str, password: str, refresh: str = "", lasting: int = 1000
    ) -> None:
        self._host, self._lasting = host, lasting
        self._basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._refresh = refresh
        self.tokens: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        if request.path.startswith("/token"):
            allowed = (
                request.method == "POST"
                if self._refresh
                else request.headers.get("authorization") == self._basic
            )
            if not allowed:
                return Fault(401, body=b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}')
            with self._lock:
                token = f"t{len(self.tokens)}"
                self.tokens[token] = self._lasting
            return Fault(200, {"Content-Type": "application/json"}, json.dumps({"token": token}).encode())
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        with self._lock:
            if self.tokens.get(given, 0) > 0:
                self.tokens[given] -= 1
                return None
        challenge = (
            f'Bearer realm="http://{self._host()}/token",service="test",scope="repository:x:pull,push"'
        )
        return Fault(401, {"WWW-Authenticate": challenge})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cut(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    with suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
