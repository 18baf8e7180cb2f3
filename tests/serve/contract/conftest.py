"""One fine-tuned bundle, and a way to ask a server on it over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from dataclasses import dataclass

import pytest

from support.endpoint import Server, serving
from support.engines import ENGINES, interpreter_of
from support.tuned import load_tuned, make_tuned, seal

VARIABLES = {"TUNEBUILD_LOG": "json"}
#: What engines run on; the reference stays on the CPU.
DEVICE = os.environ.get("TUNEBUILD_TEST_DEVICE", "cpu")


@pytest.fixture(scope="session")
def tuned(tmp_path_factory):
    """A bundle with an adapter beside its base, its renderer, and the model as PEFT loads it.

    In 32 bits, in which the reference is, vLLM takes no adapter on a card: there it is merged.
    """
    bundle = tmp_path_factory.mktemp("tuned") / "bundle"
    renderer = make_tuned(bundle, merged=DEVICE != "cpu")
    return bundle, renderer, load_tuned(bundle)


@pytest.fixture(scope="session", params=ENGINES)
def engine(request):
    """An engine's name and the interpreter of its environment."""
    return request.param, interpreter_of(request.param)


def copy_for(engine: str, bundle, target):
    """The bundle as it is served by an engine."""
    shutil.copytree(bundle, target)
    seal(target, engine=engine, device=DEVICE)
    return target


@dataclass(frozen=True)
class Endpoint:
    """A server with the model that it should serve.

    ``reference`` is that model in this process.
    """

    server: Server
    reference: object
    log: object

    @property
    def renderer(self):
        return self.server.renderer

    def open(self, path, body, method="POST", headers=None):
        host = self.server.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=240)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        return connection

    def ask(self, path, body=None, method="POST", headers=None):
        """Status, JSON or text, and headers."""
        connection = self.open(path, body, method, headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(text) if is_json else text, response.headers

    def get(self, path):
        return self.ask(path, None, "GET")

    def answer(self, body, path="/v1/chat/completions"):
        """The answer to what must succeed."""
        status, answer, _ = self.ask(path, {"model": "tiny", "temperature": 0, **body})
        assert status == 200, answer
        return answer

    def stream(self, body, path="/v1/chat/completions"):
        """Its events, as JSON; what is sent must end as it should."""
        options = {"stream": True, "stream_options": {"include_usage": True}}
        status, text, headers = self.ask(path, {"model": "tiny", "temperature": 0, **body, **options})
        assert (status, headers.get_content_type()) == (200, "text/event-stream"), text
        lines = text.split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    def metric(self, name):
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


@pytest.fixture(scope="module")
def endpoint(engine, tuned, tmp_path_factory):
    """A running server of an engine; its log is JSON."""
    name, python = engine
    bundle, renderer, reference = tuned
    folder = tmp_path_factory.mktemp(name)
    copy, log = copy_for(name, bundle, folder / "bundle"), folder / "log"
    with serving(copy, renderer, python=python, log=log, variables=VARIABLES) as server:
        yield Endpoint(server, reference, log)
