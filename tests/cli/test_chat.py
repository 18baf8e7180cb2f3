"""The chat in the terminal, through a pseudo-terminal as a person has it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tunebuild.client.chat import Chat
from tunebuild.errors import TunebuildError


class Handler(BaseHTTPRequestHandler):
    """Answers what it was asked, word by word; ``wait`` never ends by itself."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._json({"data": [{"id": "echo"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers.get("Authorization")))
        if self.headers.get("Authorization") != "Bearer secret":
            self._json({"error": {"message": "no key"}}, 401)
            return
        if self.path == "/render":
            self._json({"text": f"<s>{body['messages'][0]['content']}", "spelled": [], "count": 1})
            return
        self.send_response(200)
        self.end_headers()
        for word in (f"you said {body['messages'][-1]['content']} ".split(" ")[:-1], ["\x1b[31mred"])[
            body["messages"][-1]["content"] == "paint"
        ]:
            self._event({"content": f"{word} "})
        while body["messages"][-1]["content"] == "wait" and not self.server.gone.is_set():
            try:
                self._event({"content": "."})
            except OSError:
                self.server.gone.set()
            time.sleep(0.02)
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, delta):
        data = json.dumps({"choices": [{"index": 0, "delta": delta}]})
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def _json(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked, running.gone = [], threading.Event()
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a job in the background ignores, and hands on


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, *argv: str, **variables: str) -> None:
        self.master, slave = pty.openpty()
        env = {**os.environ, "TERM": "dumb", **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunebuild", *argv],
            stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def expect(self, text: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < end, f"{text!r} never came: {self.shown!r}"
            if select.select([self.master], [], [], 0.5)[0]:
                try:
                    self.shown += os.read(self.master, 65536).decode()
                except OSError:
                    assert text in self.shown, self.shown
        self.shown = self.shown[self.shown.index(text) + len(text) :]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())


def test_a_conversation_in_a_terminal(server):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    terminal = Terminal("chat", url, "--temperature", "0.5", TUNEBUILD_API_KEY="secret")
    terminal.expect("echo at")
    terminal.expect("> ")
    terminal.type("hello\n")
    terminal.expect("you said hello")
    terminal.expect("> ")
    terminal.type("/system Be kind.\n")
    terminal.expect("system message set")
    terminal.expect("> ")
    terminal.type("paint\n")
    terminal.expect("\\x1b[31mred")  # escape codes are shown, not obeyed
    terminal.expect("> ")
    terminal.type("/prompt\n")
    terminal.expect("<s>Be kind.")
    terminal.expect("> ")
    terminal.type("wait\n")
    terminal.expect("..")
    terminal.type("\x03")
    terminal.expect("(stopped)")
    assert server.gone.wait(10)  # the endpoint was told
    terminal.expect("> ")
    terminal.type("/reset\n")
    terminal.expect("forgotten")
    terminal.expect("> ")
    terminal.type("again\n")
    terminal.expect("you said again")
    terminal.expect("> ")
    terminal.type("/quit\n")
    assert terminal.process.wait(10) == 0
    chats = [body for path, body, _ in server.asked if path.endswith("completions")]
    assert chats[0]["temperature"] == 0.5
    roles = [turn["role"] for turn in chats[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert [turn["content"] for turn in chats[-1]["messages"]] == ["Be kind.", "again"]


def test_a_question_that_is_refused_is_not_kept(server):
    chat = Chat(f"http://127.0.0.1:{server.server_port}", "wrong")
    with pytest.raises(TunebuildError, match="no key"):
        list(chat.answer("hello"))
    assert chat.turns == []


def test_a_server_that_is_not_there_is_said():
    with pytest.raises(TunebuildError, match="cannot ask"):
        list(Chat("http://127.0.0.1:1").answer("hello"))
