"""Connections are bounded in number, in time and in the size of a head; asked over raw sockets."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack

import pytest

from tunebuild.serve import connections
from tunebuild.serve.bundle import Limits

CAP, SECONDS = 6, 0.6
REQUEST = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


class Idle:
    """What of a service the server needs."""

    class bundle:
        limits = Limits(context=1, queue=1, drain_seconds=1)

    def drain(self):
        pass

    def wait_idle(self, at_least, at_most):
        pass


async def application(scope, receive, send):
    """Answers with the length of the body."""
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "CONNECTIONS", CAP)
        patch.setattr(connections, "HEADER_SECONDS", SECONDS)
        patch.setattr(connections, "IDLE_SECONDS", SECONDS)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            number = probe.getsockname()[1]
        server = connections.make_server(application, Idle(), "127.0.0.1", number)
        server.config.lifespan = "off"
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield number
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def connect(port):
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))


def until_closed(connection):
    """All that comes until the other side closes, and the seconds that takes."""
    started, found = time.monotonic(), b""
    try:
        while block := connection.recv(65536):
            found += block
    except ConnectionResetError:
        pass
    return found, time.monotonic() - started


def exchange(connection, request):
    connection.sendall(request)
    return connection.recv(65536)


@pytest.mark.parametrize("begun", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_head_that_does_not_come_ends_the_connection(connect, begun):
    connection = connect()
    connection.sendall(begun)
    found, seconds = until_closed(connection)
    assert found == b""
    assert seconds > SECONDS / 2


def test_a_head_that_drips_ends_all_the_same(connect):
    connection = connect()
    started = time.monotonic()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012
        for letter in REQUEST[:-1] + b"X" * 10_000:
            connection.sendall(bytes([letter]))
            connection.settimeout(0.05)
            try:
                if not connection.recv(1):
                    raise ConnectionResetError
            except TimeoutError:
                pass
    assert time.monotonic() - started < 20


def test_an_idle_connection_is_used_again_and_then_closed(connect):
    connection = connect()
    for _ in range(3):
        assert exchange(connection, REQUEST).startswith(b"HTTP/1.1 200")
    assert until_closed(connection)[0] == b""


def test_a_slow_body_is_not_taken_for_a_slow_head(connect):
    connection = connect()
    connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
    connection.settimeout(SECONDS * 2)
    with pytest.raises(TimeoutError):  # still open, and nothing to say
        connection.recv(1)
    assert exchange(connection, b"def").endswith(b"\r\n\r\n6")


def test_one_connection_too_many_is_closed_and_the_others_are_answered(connect):
    first = [connect() for _ in range(CAP)]
    assert exchange(first[0], REQUEST).startswith(b"HTTP/1.1 200")
    assert until_closed(connect())[0] == b""
    for connection in first:
        assert until_closed(connection)[0] == b""
    assert exchange(connect(), REQUEST).startswith(b"HTTP/1.1 200"), "closed ones still take room"


def test_a_head_too_large_is_refused_before_it_ends(connect):
    connection = connect()
    try:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for _ in range(200):
            connection.sendall(b"X-Filler: " + b"a" * 2000 + b"\r\n")
        found, _ = until_closed(connection)
    except OSError:
        return  # refused while it was still being sent
    assert found == b"" or found.startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    ],
)
def test_what_is_no_http_is_refused(connect, nonsense):
    connection = connect()
    connection.sendall(nonsense + b"\r\n\r\n")
    found, _ = until_closed(connection)
    assert found == b"" or found.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "both",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /livez HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    ],
    ids=["two-framings", "two-lengths"],
)
def test_a_body_of_two_lengths_is_refused(connect, both):
    connection = connect()
    connection.sendall(both)
    found, _ = until_closed(connection)
    assert b" 200 " not in found
