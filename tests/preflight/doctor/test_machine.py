"""A machine is asked with limits, and what does not answer is a sentence."""

from __future__ import annotations

import http.server
import socket
import sys
import threading

import pytest

from tunebuild.preflight.doctor import machine as module
from tunebuild.preflight.doctor.machine import Machine


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "_ANSWER", 0.3)
    return Machine(tmp_path)


def test_a_server_answers_with_a_status(machine):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.headers["Authorization"] == "Bearer t" else 401)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/v2/"
        assert machine.get(address) == 401
        assert machine.get(address, token="t") == 200
        server.shutdown()


def test_a_closed_port_and_a_silent_server_are_told_apart(machine):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert machine.get(address) == "connection refused"
        silent.listen()
        assert "no answer within" in machine.get(address)
    assert isinstance(machine.get("nonsense"), str)


def test_a_program_that_hangs_or_is_absent_is_told(machine):
    assert machine.run("no-such-program").code is None
    hangs = machine.run(sys.executable, "-c", "input()", timeout=0.2)
    assert hangs.code is None or hangs.code
    assert machine.python("raise SystemExit('one\\ntwo')").said == "two"
