"""One request cannot break another, and none is worked on before it is known to be small enough."""

from __future__ import annotations

import http.client
import json
import math
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM

from support.endpoint import make_bundle, serving
from tunebuild.serve.admission import Admission, Full
from tunebuild.serve.api.limits import Keys

USER = {"role": "user", "content": "How do I reset the device?"}
BODY = {"model": "tiny", "messages": [USER], "max_tokens": 40}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bundle")
    with serving(directory, make_bundle(directory)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def post(server, body, path="/v1/chat/completions", **headers):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, data, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@pytest.mark.parametrize(
    "odd",
    [
        {"temperature": 1e-320},
        {"temperature": 2.0, "top_p": 1e-300},
        {"temperature": 1.0, "min_p": 1.0, "top_k": 1},
        {"temperature": 1.0, "logit_bias": {str(i): -100 for i in range(200)}},
        {"temperature": 1.0, "repetition_penalty": 1e-300},
        {"temperature": 1.0, "presence_penalty": -2, "frequency_penalty": 2},
    ],
)
def test_odd_sampling_settings_reach_no_other_request(server, odd):
    plain = {**BODY, "temperature": 0}
    expected = post(server, plain)[1]["choices"][0]["message"]["content"]
    with ThreadPoolExecutor(16) as pool:
        others = [pool.submit(post, server, plain) for _ in range(7)]
        odd_one = pool.submit(post, server, {**BODY, **odd})
        others += [pool.submit(post, server, plain) for _ in range(7)]
        assert [o.result()[1]["choices"][0]["message"]["content"] for o in others] == [expected] * 14
        assert odd_one.result()[0] in (200, 400, 500)


def test_a_body_too_large_is_refused_before_it_is_parsed(server):
    content = json.dumps({**BODY, "messages": [{"role": "user", "content": "a" * 3_000_000}]}).encode()
    status, answer = post(server, content)
    assert (status, answer["error"]["code"]) == (413, "request_too_large")

    def in_pieces():
        for start in range(0, len(content), 65536):
            yield content[start : start + 65536]

    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            in_pieces(),
            {"Content-Type": "application/json"},
            encode_chunked=True,
        )
    except (BrokenPipeError, ConnectionResetError):
        return  # it has said enough before it was sent all
    assert connection.getresponse().status == 413


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "\\udfff", "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b"[" * 100_000,
    ],
)
def test_invalid_unicode_and_numbers_are_400(server, body):
    status, answer = post(server, body)
    assert status == 400
    assert answer["error"]["message"]


def test_several_answers_and_their_log_probabilities(server, client):
    reply = client.chat.completions.create(
        **{**BODY, "max_tokens": 5}, n=3, logprobs=True, top_logprobs=4, temperature=1.0, seed=1
    )
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in reply.choices}) > 1
    ids = server.renderer.prompt_ids([USER])
    model = AutoModelForCausalLM.from_pretrained(server.bundle / "model", dtype=torch.float32)
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    for choice in reply.choices:
        first = choice.logprobs.content[0]
        best = [top.logprob for top in first.top_logprobs]
        assert best == pytest.approx(expected.topk(4).values.tolist(), abs=1e-3)
        assert first.logprob <= best[0] + 1e-6
        assert all(math.isfinite(token.logprob) for token in choice.logprobs.content)


def test_an_answer_in_json_is_json(client):
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    reply = client.chat.completions.create(
        **{**BODY, "max_tokens": 60},
        temperature=1.0,
        seed=3,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )
    choice = reply.choices[0]
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content)["ok"], bool)
    else:
        assert choice.message.content.lstrip().startswith("{")  # white space until the tokens ran out


def test_prompts_as_lists_and_as_token_ids(server, client):
    ids = server.renderer.encode_text("Hello")
    asked = {"model": "tiny", "max_tokens": 4, "temperature": 0}
    text = client.completions.create(prompt="Hello", **asked).choices[0].text
    assert client.completions.create(prompt=ids, **asked).choices[0].text == text
    both = client.completions.create(prompt=["Hello", "Why"], **asked)
    assert both.choices[0].text == text
    assert len(both.choices) == 2
    status, answer = post(server, {**asked, "prompt": [10**9]}, "/v1/completions")
    assert (status, answer["error"]["param"]) == (400, "prompt")


def test_render_shows_the_prompt(server):
    status, answer = post(server, {"messages": [USER]}, "/render")
    assert (status, answer["tokens"]) == (200, server.renderer.prompt_ids([USER]))
    assert len(answer["spelled"]) == answer["count"]


def test_the_published_description_names_the_errors_that_come(server):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    connection.request("GET", "/openapi.json")
    operation = json.load(connection.getresponse())["paths"]["/v1/chat/completions"]["post"]
    assert "422" not in operation["responses"]
    assert {"200", "400", "404", "413", "429", "500", "503"} <= set(operation["responses"])


def test_a_method_that_is_not_allowed_names_those_that_are(server):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    connection.request("DELETE", "/v1/models")
    response = connection.getresponse()
    assert (response.status, response.headers["Allow"]) == (405, "GET")


def test_keys_are_asked_for_and_read_again_when_the_file_changes(tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text("# ours\nfirst\n")
    monkeypatch.setenv("TUNEBUILD_API_KEYS_FILE", str(keys))
    renderer = make_bundle(tmp_path / "bundle")
    with serving(tmp_path / "bundle", renderer) as running:
        assert post(running, BODY)[0] == 401
        assert post(running, BODY, Authorization="Bearer wrong")[0] == 401
        assert post(running, BODY, Authorization="Bearer first")[0] == 200
        keys.write_text("second\n")
        assert post(running, BODY, Authorization="Bearer first")[0] == 401
        assert post(running, BODY, Authorization="Bearer second")[0] == 200


def test_a_key_file_that_goes_away_lets_nobody_in(tmp_path):
    keys = Keys(tmp_path / "gone")
    assert keys.required
    assert not keys.accepts("")
    assert not keys.accepts("x")


def test_places_come_back_whatever_ends_a_request():
    admission = Admission(concurrency=2, queue=1)
    with pytest.raises(ZeroDivisionError), admission.enter() as places:  # noqa: PT012
        places.take(2)
        with pytest.raises(Full), admission.enter():
            pass
        raise ZeroDivisionError
    assert admission.inside == 0
    with admission.enter() as places, pytest.raises(Full):
        places.take(3)
    assert admission.inside == 0
