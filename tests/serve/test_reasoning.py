"""Reasoning models as clients meet them: variables of the template, and reasoning apart from the answer."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from starlette.testclient import TestClient

from support import templates
from support.endpoint import make_bundle, serving
from tunebuild.serve.api.app import make_app
from tunebuild.serve.bundle import Bundle
from tunebuild.serve.engines.request import Finish, Token
from tunebuild.serve.service import Service
from tunebuild.spec.model import PromptSpec, TemplateFile

USER = {"role": "user", "content": "How do I reset the device?"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bundle")
    (directory / "t.jinja").write_text(templates.SWITCHED)
    prompt = PromptSpec(
        template=TemplateFile(file="t.jinja"), variables={"enable_thinking": True, "effort": "low"}
    )
    renderer = make_bundle(directory, prompt=prompt, request_variables=["enable_thinking"])
    with serving(directory, renderer) as running:
        yield running


def post(server, path, **body):
    data = json.dumps({"model": "tiny", **body}).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def rendered(server, **variables):
    return post(server, "/render", messages=[USER], chat_template_kwargs=variables)


def test_a_request_sets_a_variable_that_the_spec_allows(server):
    status, off = rendered(server, enable_thinking=False)
    assert status == 200
    assert off["tokens"] == server.renderer.prompt_ids([USER], {"enable_thinking": False})
    assert (
        off["tokens"] != rendered(server, enable_thinking=True)[1]["tokens"] == rendered(server)[1]["tokens"]
    )
    asked = {"messages": [USER], "max_tokens": 2, "chat_template_kwargs": {"enable_thinking": False}}
    status, answer = post(server, "/v1/chat/completions", **asked)
    assert (status, answer["usage"]["prompt_tokens"]) == (200, off["count"])


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"effort": "high"}, "effort"),
        ({"tools_in_user_message": True}, "tools_in_user_message"),
        ({"messages": "x"}, "messages"),
        ({"enable_thinking": "false"}, "enable_thinking"),
        ({"enable_thinking": 0}, "enable_thinking"),
    ],
)
def test_any_other_variable_is_refused_by_name(server, variables, named):
    for path in ("/render", "/v1/chat/completions"):
        status, answer = post(server, path, messages=[USER], chat_template_kwargs=variables)
        assert status == 400
        assert answer["error"]["param"] == f"chat_template_kwargs.{named}"
        assert named in answer["error"]["message"]


def test_the_value_that_the_spec_sets_is_no_other_prompt(server):
    assert rendered(server, effort="low")[1] == rendered(server)[1]


NAME = {"enum": ["Ann", "Bo"]}


def test_json_stands_in_the_answer_not_in_the_reasoning(server):
    wanted = {"type": "json_schema", "json_schema": {"name": "name", "schema": NAME}}
    asked = {"messages": [USER], "max_tokens": 100, "response_format": wanted}
    for variables in ({}, {"enable_thinking": False}):
        status, answer = post(server, "/v1/chat/completions", chat_template_kwargs=variables, **asked)
        assert status == 200
        message = answer["choices"][0]["message"]
        assert json.loads(message["content"]) in ("Ann", "Bo")
        assert "reasoning_content" not in message


class Scripted:
    """An engine that makes the tokens that it is told."""

    dtype, healthy, capacity, running = "float32", True, 8, 0

    def __init__(self) -> None:
        self.ids, self.finish = [], Finish.STOP

    def start(self) -> None:
        """Nothing to load."""

    def stop(self) -> None:
        """Nothing to end."""

    def submit(self, generation) -> None:
        """One token at each turn of the loop."""
        items = [*map(Token, self.ids), self.finish]

        def feed() -> None:
            generation.put(items.pop(0))
            if items:
                generation.loop.call_later(0.001, feed)

        generation.loop.call_soon(feed)


class Scene:
    """A served template whose model writes what a test says."""

    def __init__(self, directory, template) -> None:
        (directory / "t.jinja").write_text(template)
        self.renderer = make_bundle(directory, prompt=PromptSpec(template=TemplateFile(file="t.jinja")))
        self.engine = Scripted()
        self.app = make_app(Service(directory, Bundle.load(directory), self.engine))

    def writes(self, text, finish=Finish.STOP):
        self.engine.ids, self.engine.finish = self.renderer.tokenizer.encode(text), finish

    def asks(self, client, **more):
        return client.post("/v1/chat/completions", json={"model": "tiny", "messages": [USER], **more})


@pytest.fixture(scope="module", params=["switched", "opened", "dropped"])
def scene(request, tmp_path_factory):
    template = {
        "switched": templates.SWITCHED,
        "opened": templates.OPENED,
        "dropped": templates.DROPPED,
    }[request.param]
    made = Scene(tmp_path_factory.mktemp(request.param), template)
    with TestClient(made.app) as client:
        while client.get("/readyz").status_code != 200:
            pass
        yield made, client


def streamed(response):
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    choices = [json.loads(line)["choices"][0] for line in lines]
    return [c["delta"] for c in choices], choices[-1]["finish_reason"]


@pytest.mark.parametrize("finish", [Finish.STOP, Finish.LENGTH])
@pytest.mark.parametrize(
    ("block", "reasoning", "answer"),
    [
        ("Hold it\n\nfor ten.\n</think>\n\nTen seconds.", "Hold it\n\nfor ten.", "Ten seconds."),
        ("\n</think>\n\nTen seconds.", None, "Ten seconds."),
        ("Hold it for", "Hold it for", ""),
        ("One.\n</think>\n\nTwo < 3 </think> four", "One.", "Two < 3 </think> four"),
        ("Größe \U0001f9ed?\n</think>\n\n\u4f60\u597d", "Größe \U0001f9ed?", "\u4f60\u597d"),
    ],
)
def test_reasoning_comes_apart_from_the_answer(scene, block, reasoning, answer, finish):
    made, client = scene
    text = block if made.renderer.texts.opens else "<think>\n" + block
    made.writes(text, finish)
    assert len(made.engine.ids) > len(text.split()), "a marker is more than one token here"
    (whole,) = made.asks(client).json()["choices"]
    assert whole["finish_reason"] == finish
    assert (whole["message"].get("reasoning_content"), whole["message"]["content"]) == (reasoning, answer)
    deltas, end = streamed(made.asks(client, stream=True))
    assert end == finish
    assert "".join(d.get("reasoning_content", "") for d in deltas) == (reasoning or "")
    assert "".join(d.get("content") or "" for d in deltas) == answer
    first = next((n for n, d in enumerate(deltas) if d.get("content")), len(deltas))
    assert not any("reasoning_content" in d for d in deltas[first:])
    if reasoning and len(reasoning) > 10:
        assert sum("reasoning_content" in d for d in deltas) > 2, "it is not held back until its end"


def test_an_answer_without_a_block_is_all_answer(scene):
    made, client = scene
    if made.renderer.texts.opens:
        pytest.skip("the prompt opens the block")
    made.writes(" <b>Ten</b> seconds <think> ")
    (whole,) = made.asks(client).json()["choices"]
    assert whole["message"] == {
        "role": "assistant", "content": " <b>Ten</b> seconds <think> ", "refusal": None
    }  # fmt: skip
    deltas, _ = streamed(made.asks(client, stream=True))
    assert "".join(d.get("content") or "" for d in deltas) == " <b>Ten</b> seconds <think> "


def test_reasoning_may_be_sent_back(scene):
    made, client = scene
    answer = {"role": "assistant", "content": "Ten.", "reasoning_content": "Hold.", "refusal": None}
    talk = [USER, answer, USER]
    found = client.post("/render", json={"model": "tiny", "messages": talk})
    bare = [USER, {"role": "assistant", "content": "Ten."}, USER]
    # These templates leave earlier reasoning out.
    assert found.json()["tokens"] == made.renderer.prompt_ids(bare)
    inside = [USER, {"role": "assistant", "content": "<think>\nHold.\n</think>\n\nTen."}, USER]
    found = client.post("/render", json={"model": "tiny", "messages": inside})
    assert found.json()["tokens"] == made.renderer.prompt_ids(bare)
    refused = client.post("/render", json={"messages": [{**USER, "reasoning_content": "x"}]})
    assert refused.status_code == 400


def test_plain_completions_are_left_as_they_are(scene):
    made, client = scene
    made.writes("<think>\nOne.\n</think>\n\nTwo.")
    answer = client.post("/v1/completions", json={"model": "tiny", "prompt": "x"}).json()
    assert answer["choices"][0]["text"] == "<think>\nOne.\n</think>\n\nTwo."
