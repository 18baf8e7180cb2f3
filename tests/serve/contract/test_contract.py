"""What every engine does alike, asked over HTTP. The reference is the same model in this process."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest
import torch

from tunebuild.prompt import load_golden

USER = {"role": "user", "content": "How do I reset the device?"}
CHAT = {"messages": [USER]}
ROUTES = {
    "chat": ("/v1/chat/completions", CHAT),
    "plain": ("/v1/completions", {"prompt": "hello world"}),
}


def prompt_ids(endpoint, route):
    renderer = endpoint.renderer
    return renderer.prompt_ids([USER]) if route == "chat" else renderer.encode_text("hello world")


def text_of(choice):
    return choice["message"]["content"] if "message" in choice else choice["text"]


def expected(endpoint, ids, length, penalty=0.0, frequency=0.0):
    """Greedy ids, one forward pass of the whole text each, with OpenAI's penalties."""
    made, counts = [], None
    with torch.inference_mode():
        while len(made) < length:
            logits = endpoint.reference(torch.tensor([ids + made])).logits[0, -1]
            counts = torch.zeros_like(logits) if counts is None else counts
            token = int((logits - frequency * counts - penalty * (counts > 0)).argmax())
            if token in endpoint.renderer.stop_ids:
                break
            counts[token] += 1
            made.append(token)
    return made


def spell(endpoint, ids):
    stream = endpoint.renderer.detokenizer()
    return "".join(map(stream.push, ids)) + stream.flush()


def join(events, index=0):
    """Text, last finish reason and log-probabilities of an answer in a stream."""
    choices = [c for e in events for c in e["choices"] if c["index"] == index]
    text = "".join((c["delta"].get("content") or "") if "delta" in c else c["text"] for c in choices)
    return text, choices[-1]["finish_reason"], [c["logprobs"] for c in choices if c["logprobs"]]


def wait_for(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_prompts_are_those_of_training(endpoint):
    for vector in load_golden(endpoint.server.bundle / "prompt" / "golden.json"):
        status, shown, _ = endpoint.ask("/render", {"messages": vector.messages})
        assert (status, shown.get("tokens")) == (200, vector.ids) if vector.ids else status == 400
    used = endpoint.answer({**CHAT, "max_tokens": 1})["usage"]["prompt_tokens"]
    assert used == len(endpoint.renderer.prompt_ids([USER]))


@pytest.mark.parametrize("route", ROUTES)
def test_answers_are_the_models_whole_and_streamed(endpoint, route):
    path, body = ROUTES[route]
    made = expected(endpoint, prompt_ids(endpoint, route), 20)
    whole = endpoint.answer({**body, "max_tokens": 20}, path)
    choice = whole["choices"][0]
    assert text_of(choice) == spell(endpoint, made)
    assert choice["finish_reason"] == ("length" if len(made) == 20 else "stop")
    assert whole["usage"]["completion_tokens"] == len(made)
    events = endpoint.stream({**body, "max_tokens": 20}, path)
    assert join(events)[:2] == (text_of(choice), choice["finish_reason"])
    assert events[-1]["usage"] == whole["usage"]
    assert len({event["id"] for event in events}) == 1
    if route == "chat":
        assert events[0]["choices"][0]["delta"]["role"] == "assistant"


def test_several_answers_have_their_own_numbers_and_seeds(endpoint):
    body = {**CHAT, "n": 3, "temperature": 1.2, "seed": 7, "max_tokens": 12}
    whole = endpoint.answer(body)
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    texts = [text_of(choice) for choice in whole["choices"]]
    assert len(set(texts)) == 3
    events = endpoint.stream(body)
    assert [join(events, n)[0] for n in range(3)] == texts
    alone = endpoint.answer({**body, "n": 1, "seed": 8})
    assert text_of(alone["choices"][0]) == texts[1]


def test_log_probabilities_are_the_models(endpoint):
    body = {**CHAT, "max_tokens": 6, "logprobs": True, "top_logprobs": 4}
    tokens = endpoint.answer(body)["choices"][0]["logprobs"]["content"]
    ids = prompt_ids(endpoint, "chat")
    made = expected(endpoint, ids, 6)
    with torch.inference_mode():
        logprobs = endpoint.reference(torch.tensor([ids + made])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    assert len(tokens) == len(made)
    for token, row, chosen in zip(tokens, logprobs, made, strict=True):
        assert token["logprob"] == pytest.approx(float(row[chosen]), abs=2e-3)
        best = [top["logprob"] for top in token["top_logprobs"]]
        assert best == pytest.approx(row.topk(4).values.tolist(), abs=2e-3)
    streamed = [token for part in join(endpoint.stream(body))[2] for token in part["content"]]
    assert [t["token"] for t in streamed] == [t["token"] for t in tokens[: len(streamed)]]
    plain = endpoint.answer({"prompt": "hello", "max_tokens": 3, "logprobs": 2}, "/v1/completions")
    found = plain["choices"][0]["logprobs"]
    assert len(found["tokens"]) == len(found["token_logprobs"]) == len(found["text_offset"])
    assert "logprobs" in endpoint.answer({**CHAT, "max_tokens": 1})["choices"][0]


@pytest.mark.parametrize("route", ROUTES)
def test_stop_texts_end_an_answer_wherever_tokens_are_cut(endpoint, route):
    path, body = ROUTES[route]
    whole = text_of(endpoint.answer({**body, "max_tokens": 24}, path)["choices"][0])
    for length in (1, 5):
        stop = whole[len(whole) // 2 : len(whole) // 2 + length]
        asked = {**body, "max_tokens": 24, "stop": ["never", stop]}
        choice = endpoint.answer(asked, path)["choices"][0]
        assert (text_of(choice), choice["finish_reason"]) == (whole[: whole.index(stop)], "stop")
        assert join(endpoint.stream(asked, path))[:2] == (text_of(choice), "stop")


def test_a_seed_repeats_an_answer(endpoint):
    def sample(seed):
        body = {**CHAT, "temperature": 1.5, "top_p": 0.95, "seed": seed, "max_tokens": 12}
        return text_of(endpoint.answer(body)["choices"][0])

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_logit_bias_forces_and_bans(endpoint):
    first, *_ = expected(endpoint, prompt_ids(endpoint, "chat"), 1)
    wanted = endpoint.renderer.encode_text("w")[0]
    forced = endpoint.answer({**CHAT, "max_tokens": 4, "logit_bias": {str(wanted): 100}})
    assert text_of(forced["choices"][0]) == spell(endpoint, [wanted] * 4)
    body = {**CHAT, "max_tokens": 1, "logprobs": True}
    banned = endpoint.answer({**body, "logit_bias": {str(first): -100}})["choices"][0]["logprobs"]["content"]
    plain = endpoint.answer(body)["choices"][0]["logprobs"]["content"]
    assert banned[0]["logprob"] < plain[0]["logprob"]


def test_penalties_are_openais(endpoint):
    ids = prompt_ids(endpoint, "chat")
    body = {**CHAT, "max_tokens": 16, "presence_penalty": 1.5, "frequency_penalty": 0.5}
    made = expected(endpoint, ids, 16, penalty=1.5, frequency=0.5)
    assert text_of(endpoint.answer(body)["choices"][0]) == spell(endpoint, made)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_follows_its_schema(endpoint, stream):
    schema = {"enum": ["yes", "no"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    body = {**CHAT, "max_tokens": 40, "temperature": 1.0, "seed": 3, "response_format": wanted}
    if stream:
        text, finish, _ = join(endpoint.stream(body))
    else:
        choice = endpoint.answer(body)["choices"][0]
        text, finish = text_of(choice), choice["finish_reason"]
    assert finish == "stop", text
    jsonschema.validate(json.loads(text), schema)


def test_token_ids_and_lists_are_prompts_too(endpoint):
    asked = {"max_tokens": 4}
    ids = endpoint.renderer.encode_text("hello world")
    path = "/v1/completions"
    text = text_of(endpoint.answer({**asked, "prompt": "hello world"}, path)["choices"][0])
    both = endpoint.answer({**asked, "prompt": [ids, ids[:1]]}, path)["choices"]
    assert text_of(both[0]) == text
    assert len(both) == 2


@pytest.mark.parametrize("odd", [{"temperature": 1e-320}, {"temperature": 2, "top_p": 1e-300}])
def test_odd_settings_reach_no_other_request(endpoint, odd):
    body = {"model": "tiny", **CHAT, "max_tokens": 30, "temperature": 0}
    right = endpoint.answer(body)["choices"]
    with ThreadPoolExecutor(9) as pool:
        others = [pool.submit(endpoint.answer, body) for _ in range(4)]
        asked = pool.submit(endpoint.ask, "/v1/chat/completions", {**body, **odd})
        others += [pool.submit(endpoint.answer, body) for _ in range(4)]
        assert [other.result()["choices"] for other in others] == [right] * 8
        assert asked.result()[0] in (200, 400)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "other"}, 404, "model_not_found"),
        ({"messages": [{"role": "user", "content": "word " * 300}]}, 400, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "a" * 2_000_000}]}, 413, "request_too_large"),
        ({"max_tokens": 100_000}, 400, "context_length_exceeded"),
        ({"n": 1000}, 400, "invalid_value"),
        ({"logit_bias": {"99999999": 1}}, 400, "invalid_value"),
        ({"best_guess": 1}, 400, "unsupported_parameter"),
    ],
)
def test_refusals_are_alike(endpoint, change, status, code):
    found, answer, _ = endpoint.ask("/v1/chat/completions", {"model": "tiny", **CHAT, **change})
    assert (found, answer["error"]["code"]) == (status, code)
    assert set(answer["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_place(endpoint, stream):
    body = {"model": "tiny", **CHAT, "max_tokens": 150, "stream": stream, "logit_bias": {"40": 100}}
    connections = [endpoint.open("/v1/chat/completions", body) for _ in range(20)]
    if stream:
        connections[0].getresponse().read(10)
    for connection in connections:
        connection.close()
    for name in ("tunebuild_requests_running", "tunebuild_requests_waiting"):
        wait_for(lambda name=name: endpoint.metric(name) == 0)
    assert endpoint.answer({**CHAT, "max_tokens": 2})["choices"]


def test_a_request_can_be_found_in_log_and_metrics(endpoint):
    before = endpoint.metric("tunebuild_tokens_total")
    _, answer, headers = endpoint.ask(
        "/v1/chat/completions",
        {"model": "tiny", **CHAT, "max_tokens": 3, "temperature": 0},
        headers={"X-Request-Id": "mine-1"},
    )
    assert headers["X-Request-Id"] == "mine-1"
    assert endpoint.metric("tunebuild_tokens_total") - before == answer["usage"]["total_tokens"]
    assert endpoint.metric("tunebuild_first_token_seconds_count") > 0
    lines = [json.loads(line) for line in endpoint.log.read_text().splitlines() if line.startswith("{")]
    assert any(line.get("id") == "mine-1" and line["status"] == 200 for line in lines)
    assert USER["content"] not in endpoint.log.read_text()


def test_sigterm_drains_refuses_and_exits_with_0(endpoint):
    """The last one: it ends the server."""
    body = {"model": "tiny", **CHAT, "max_tokens": 150, "logit_bias": {"40": 100}}
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(endpoint.ask, "/v1/chat/completions", body) for _ in range(6)]
        wait_for(lambda: endpoint.metric("tunebuild_requests_running") > 0 or running[-1].done())
        endpoint.server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: endpoint.get("/readyz")[0] == 503)
        status, answer, headers = endpoint.ask("/v1/chat/completions", body)
        assert (status, answer["error"]["code"]) == (503, "not_ready")
        assert headers["Retry-After"]
        assert {one.result()[0] for one in running} == {200}
    assert endpoint.server.process.wait(120) == 0
