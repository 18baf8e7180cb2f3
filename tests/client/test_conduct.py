"""Conduct is checked as it is: a server that keeps to the contract passes, and each breach is found."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from xml.etree import ElementTree as xml

import pytest

from support.endpoint import make_bundle, serving
from tunebuild.client.conduct import Finding, Server, begin_answer, check_conduct, end_answer
from tunebuild.client.findings import save_json, save_junit


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bundle")
    with serving(directory, make_bundle(directory)) as running:
        yield running


def test_a_server_passes_and_finishes_what_has_begun(server):
    found = list(check_conduct(Server(server.url)))
    assert [f.problem for f in found] == [""] * len(found)
    overload = next(f for f in found if f.group == "overload")
    assert ", 0 refused" not in overload.detail
    begun = begin_answer(Server(server.url), 32)
    server.process.terminate()
    assert end_answer(*begun) == ""
    assert server.process.wait(60) == 0


class Sloppy(BaseHTTPRequestHandler):
    """Answers everything with 200 and one text."""

    def log_message(self, *_):
        pass

    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        choice = {"text": "x", "finish_reason": "stop", "message": {"content": "x"}}
        data = json.dumps({"data": [{"id": "m"}], "id": "other", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _answer


def test_each_breach_is_found():
    with ThreadingHTTPServer(("127.0.0.1", 0), Sloppy) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        found = list(check_conduct(Server(f"http://127.0.0.1:{running.server_port}")))
        running.shutdown()
    assert all(f.problem for f in found if f.group == "contract")


def test_findings_are_written_for_ci_and_for_machines(tmp_path):
    found = [
        Finding("contract", "a", detail="ok\x1b[31m", seconds=0.5),
        Finding("cancel", "b", problem="it ran on"),
    ]
    save_junit(tmp_path / "j.xml", "bot", found)
    suite = xml.parse(tmp_path / "j.xml").getroot()
    assert suite.attrib == {"tests": "2", "failures": "1", "time": "0.500"}
    assert suite.find(".//failure").attrib["message"] == "it ran on"
    save_json(tmp_path / "j.json", "bot", found, {"exact": 1})
    value = json.loads((tmp_path / "j.json").read_text())
    assert (value["passed"], value["figures"]) == (False, {"exact": 1})
    assert [f["passed"] for f in value["findings"]] == [True, False]
