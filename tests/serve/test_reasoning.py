"""Reasoning models as clients meet them: variables of the template, and reasoning apart from the answer."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from support import templates
from support.endpoint import make_bundle, serving
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
