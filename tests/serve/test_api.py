"""The endpoint as clients meet it: the official client, plain HTTP, and what must be refused."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM

from support.endpoint import make_bundle, serving

USER = {"role": "user", "content": "How do I reset the device?"}
TOOL = {"type": "function", "function": {"name": "clock"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bundle")
    with serving(directory, make_bundle(directory)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def ask(client, messages=(USER,), **options):
    options = {"temperature": 0, **options}
    return client.chat.completions.create(model="tiny", messages=list(messages), **options)


def post(server, path, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def get(server, path):
    with urllib.request.urlopen(server.url + path, timeout=30) as response:
        return response.read().decode()


def reference_answer(server, messages, length):
    """The same conversation through plain ``generate``."""
    model = AutoModelForCausalLM.from_pretrained(server.bundle / "model", dtype=torch.float32)
    ids = server.renderer.prompt_ids(messages)
    made = model.generate(
        torch.tensor([ids]),
        max_new_tokens=length,
        do_sample=False,
        eos_token_id=sorted(server.renderer.stop_ids),
        pad_token_id=0,
    )[0][len(ids) :].tolist()
    # Random models make bytes that are no text; piece by piece is how the server decodes those too.
    stream = server.renderer.detokenizer()
    ended = [i for i in made if i not in server.renderer.stop_ids]
    return "".join(map(stream.push, ended)) + stream.flush(), len(ids)


def test_greedy_is_generate_and_usage_is_true(server, client):
    reply = ask(client, max_tokens=24)
    expected, prompt_tokens = reference_answer(server, [USER], 24)
    assert reply.choices[0].message.content == expected
    assert reply.usage.prompt_tokens == prompt_tokens
    assert reply.usage.total_tokens == prompt_tokens + reply.usage.completion_tokens
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.usage.completion_tokens == 24 or reply.choices[0].finish_reason == "stop"


def test_streamed_equals_whole(client):
    whole = ask(client, max_completion_tokens=20)
    chunks = list(ask(client, max_completion_tokens=20, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage


def test_concurrent_requests_answer_as_alone(client):
    questions = [({"role": "user", "content": "word " * n + "?"},) for n in range(1, 25)]
    alone = [ask(client, q, max_tokens=20).choices[0].message.content for q in questions]
    with ThreadPoolExecutor(20) as pool:
        together = list(
            pool.map(lambda q: ask(client, q, max_tokens=20).choices[0].message.content, questions)
        )
    assert together == alone
    assert len(set(alone)) > 5


def test_sampling_repeats_with_a_seed(client):
    def sample(seed):
        return ask(client, temperature=1.5, seed=seed, max_tokens=20).choices[0].message.content

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(5)}) > 1


def test_system_text_of_the_spec_is_the_default(client):
    plain = ask(client).usage.prompt_tokens
    assert plain == ask(client, [{"role": "system", "content": "Be brief."}, USER]).usage.prompt_tokens
    assert plain == ask(client, [{"role": "developer", "content": "Be brief."}, USER]).usage.prompt_tokens
    assert plain != ask(client, [{"role": "system", "content": ""}, USER]).usage.prompt_tokens


def test_control_tokens_in_a_question_stay_text(server, client):
    message = {"role": "user", "content": "What is <|im_end|> for?"}
    assert ask(client, [message]).usage.prompt_tokens == len(server.renderer.prompt_ids([message]))
    ids = server.renderer.prompt_ids([message])
    end = server.renderer.turn_end_id
    assert ids.count(end) == server.renderer.prompt_ids([USER]).count(end), "what a user typed became control"


def test_content_parts_are_joined(client):
    parts = [{"type": "text", "text": "How do I "}, {"type": "text", "text": "reset the device?"}]
    joined = ask(client, [{"role": "user", "content": parts}])
    assert joined.choices[0].message.content == ask(client).choices[0].message.content


def test_stop_texts_end_the_answer_and_are_left_out(client):
    whole = ask(client, max_tokens=40).choices[0].message.content
    middle = whole[len(whole) // 2 : len(whole) // 2 + 4]
    cut = ask(client, max_tokens=40, stop=[middle, "never"])
    assert cut.choices[0].message.content == whole[: whole.index(middle)]
    assert cut.choices[0].finish_reason == "stop"
    chunks = ask(client, max_tokens=40, stop=middle, stream=True)
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert streamed == cut.choices[0].message.content


def test_completions_continue_plain_text(server, client):
    reply = client.completions.create(model="tiny", prompt="hello world", max_tokens=8, temperature=0)
    assert reply.usage.prompt_tokens == len(server.renderer.encode_text("hello world"))
    assert reply.object == "text_completion"


def test_models_health_and_metrics(server, client):
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    assert json.loads(get(server, "/livez")) == {"status": "alive"}
    assert json.loads(get(server, "/readyz"))["prompt"] == server.renderer.digest
    metrics = get(server, "/metrics")
    assert 'tunebuild_requests_total{route="/v1/chat/completions",status="200"}' in metrics
    assert "tunebuild_ready 1.0" in metrics


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"model": "other"}, 404, "model_not_found", "model"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "invalid_value", "messages.0.role"),
        ({"messages": [{"role": "user"}]}, 400, "invalid_value", "messages.0"),
        (
            {"messages": [{"role": "user", "content": "word " * 300}]},
            400,
            "context_length_exceeded",
            "messages",
        ),
        ({"max_tokens": 100000}, 400, "context_length_exceeded", "messages"),
        ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
        ({"temperature": 3}, 400, "invalid_value", "temperature"),
        ({"n": 1000}, 400, "invalid_value", "n"),
        ({"n": 100}, 400, "invalid_value", "n"),  # more than there are places
        ({"logit_bias": {"99999999": 1}}, 400, "invalid_value", "logit_bias"),
        ({"stop": ["x" * 1000]}, 400, "invalid_value", "stop"),
        ({"tools": [{"type": "function"}]}, 400, "invalid_value", "tools.0.function"),
        ({"tools": [TOOL]}, 400, "unsupported_parameter", "tools"),
        ({"frequency_penalty": 5}, 400, "invalid_value", "frequency_penalty"),
        ({"best_guess": 1}, 400, "unsupported_parameter", "best_guess"),
        ({"messages": [{"role": "user", "content": "\uf8f0"}]}, 400, "prompt_refused", "messages"),
    ],
)
def test_unsupported_fields_are_refused_in_openai_error_format(server, change, status, code, param):
    answer = post(server, "/v1/chat/completions", {"model": "tiny", "messages": [USER], **change})
    assert answer[0] == status
    error = answer[1]["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"best_guess": 1}, "'best_guess' is not supported"),
        ({"functions": []}, "'functions' is not supported"),
        (
            {"tools": [TOOL]},
            "this model takes no tools: template 'base' prints no tools, so the model would not know of them",
        ),
        ({"store": True}, "'store' is not supported, only false"),
    ],
)
def test_unsupported_content_is_refused_in_plain_words(server, change, message):
    answer = post(server, "/v1/chat/completions", {"model": "tiny", "messages": [USER], **change})
    assert answer[1]["error"]["message"] == message


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"text"'])
def test_bodies_that_are_no_requests(server, body):
    status, answer = post(server, "/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["message"]


def test_unknown_routes_and_methods(server):
    for path, status in (("/v1/nothing", 404), ("/v1/models", 405)):
        answered, answer = post(server, path, {})
        assert answered == status
        assert answer["error"]["code"]


@pytest.mark.parametrize("architecture", ["mistral", "falcon"])
def test_every_architecture_batches_as_alone(tmp_path, architecture):
    """Mistral's sliding window is 64 tokens here: some prompts are longer, some shorter."""
    with serving(tmp_path, make_bundle(tmp_path, architecture)) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        questions = [[{"role": "user", "content": "hello " * n}] for n in (1, 3, 12, 25)]
        expected = [reference_answer(running, q, 16)[0] for q in questions]
        with ThreadPoolExecutor(4) as pool:
            together = list(
                pool.map(lambda q: ask(client, q, max_tokens=16).choices[0].message.content, questions)
            )
        assert together == expected
