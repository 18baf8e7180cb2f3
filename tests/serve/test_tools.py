"""Tools in requests: what the model sees of them, what comes back, and what is refused."""

from __future__ import annotations

import json

import openai
import pytest
from pydantic import BaseModel

from support.endpoint import make_bundle, serving
from tunebuild.prompt.call_grammar import call_grammar
from tunebuild.prompt.messages import with_tools
from tunebuild.prompt.tools import plain_tools
from tunebuild.serve.api.schemas import ChatRequest
from tunebuild.serve.api.tools import MessageParts, joined, tool_use
from tunebuild.spec.model import PromptSpec

TOOLS = PromptSpec(template="qwen", system="Be brief.")
USER = {"role": "user", "content": "Sun in Rome?"}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "In a city.", "parameters": PARAMETERS},
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
CALL = {"id": "abc", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "abc", "content": "Sunny."}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bundle")
    with serving(directory, make_bundle(directory, prompt=TOOLS, context=2048)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def ask(client, messages=(USER,), **options):
    options = {"temperature": 1.5, "seed": 5, "max_tokens": 200, "tools": [WEATHER, CLOCK], **options}
    return client.chat.completions.create(model="tiny", messages=list(messages), **options)


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize("choice", [NAMED, "required"])
def test_a_call_that_is_required_comes_and_fits_its_schema(client, choice):
    tools = [WEATHER] if choice == "required" else [CLOCK, WEATHER]
    reply = ask(client, tool_choice=choice, tools=tools, parallel_tool_calls=False).choices[0]
    (call,) = reply.message.tool_calls
    assert (reply.finish_reason, reply.message.content) == ("tool_calls", None)
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")
    assert call.id


def test_streamed_calls_add_up_to_the_whole_ones(client):
    options = {"tool_choice": NAMED}
    (whole,) = ask(client, **options).choices[0].message.tool_calls
    chunks = list(ask(client, stream=True, **options))
    pieces = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or ()]
    assert (pieces[0].index, pieces[0].type, pieces[0].function.name) == (0, "function", "weather")
    assert pieces[0].id
    assert all(piece.id is None and piece.function.name is None for piece in pieces[1:])
    assert len(pieces) > 2
    assert "".join(piece.function.arguments for piece in pieces) == whole.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    with client.chat.completions.stream(
        model="tiny", messages=[USER], tools=[WEATHER], temperature=1.5, seed=5, max_tokens=200, **options
    ) as stream:
        final = stream.get_final_completion().choices[0].message
    assert final.tool_calls[0].function.arguments == whole.function.arguments


def test_the_model_is_fed_what_training_fed_it(server, client):
    turns = [USER, {**CALLED, "content": ""}, RESULT]
    arguments = {"name": "weather", "arguments": {"city": "Rome"}}
    turns[1] = {**turns[1], "tool_calls": [{**CALL, "function": arguments}]}
    expected = server.renderer.prompt_ids(with_tools(turns, plain_tools([WEATHER, CLOCK])))
    reply = ask(client, [USER, CALLED, RESULT], max_tokens=1)
    assert reply.usage.prompt_tokens == len(expected)
    rendered = client.post(
        "/../render", body={"messages": [USER, CALLED, RESULT], "tools": [WEATHER, CLOCK]}, cast_to=object
    )
    assert rendered["tokens"] == expected
    # With `none`, nothing is listed that could be called.
    none = ask(client, tool_choice="none", max_tokens=1)
    assert none.usage.prompt_tokens == len(server.renderer.prompt_ids([USER]))


def test_what_a_user_names_stays_text_in_tools_too(server, client):
    end = server.renderer.turn_end_id
    odd = {"<|im_end|>": {"description": "<|im_end|>"}}
    tool = {"name": "f", "description": "<|im_end|>", "parameters": {"type": "object", "properties": odd}}
    listed = plain_tools([tool])
    ids = server.renderer.prompt_ids(with_tools([USER], listed))
    assert ids.count(end) == server.renderer.prompt_ids([USER]).count(end)
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": odd}}]
    said = {"role": "assistant", "content": "", "tool_calls": calls}
    ids = server.renderer.prompt_ids([USER, said, RESULT])
    bare = [USER, {**said, "tool_calls": []}, RESULT]
    assert ids.count(end) == server.renderer.prompt_ids(bare).count(end)


@pytest.mark.parametrize(
    ("change", "param", "word"),
    [
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "no tools"),
        ({"tool_choice": {**NAMED, "function": {"name": "f"}}}, "tool_choice", "none of the tools"),
        ({"tools": [{**NAMED, "function": {"name": "a b"}}]}, "tools.0.function.name", "pattern"),
        ({"tools": [{"type": "code"}]}, "tools.0.type", "only 'function'"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "objec"}}}],
                "tool_choice": "required",
            },
            "tools",
            "cannot be followed",
        ),
        ({"messages": [{"role": "assistant"}]}, "messages.0", "no text content"),
        (
            {"messages": [{**CALLED, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}]},
            "messages.0",
            "not JSON",
        ),
        ({"messages": [{**USER, "tool_calls": [CALL]}]}, "messages.0", "only turns of the assistant"),
        ({"messages": [USER, {**RESULT, "content": None}]}, "messages.1", "no text content"),
        ({"functions": []}, "functions", "not supported"),
    ],
)  # fmt: skip
def test_what_cannot_be_honored_is_refused(client, change, param, word):
    body = {"model": "tiny", "messages": [USER], "tools": [WEATHER], **change}
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/chat/completions", body=body, cast_to=object)
    assert refused.value.param == param
    assert word in refused.value.message


def test_deep_json_is_the_clients_fault(client):
    deep: dict = {}
    for _ in range(300):
        deep = {"properties": {"a": deep}}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    for body in (
        {"tools": [tool]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": deep}}},
    ):
        with pytest.raises(openai.BadRequestError, match="nested"):
            client.post(
                "/chat/completions", body={"model": "tiny", "messages": [USER], **body}, cast_to=object
            )


def test_with_a_response_format_an_answer_is_a_call_or_fits_it(server):
    class Sky(BaseModel):
        clear: bool

    body = {
        "model": "tiny",
        "messages": [USER],
        "tools": [WEATHER],
        "response_format": {"type": "json_schema", "json_schema": {"schema": Sky.model_json_schema()}},
    }
    use = tool_use(server.renderer, ChatRequest.model_validate(body))
    from llguidance import LLMatcher, LLTokenizer

    tokenizer = LLTokenizer(server.renderer.tokenizer.definition, eos_token=[server.renderer.turn_end_id])
    grammar = LLMatcher.grammar_from_lark(use.constraint.text)

    def accepts(text):
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        return (
            all(map(matcher.consume_token, server.renderer.tokenizer.encode(text))) and matcher.is_accepting()
        )

    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    assert accepts('{"clear": true}')
    assert accepts(call) or accepts("\n" + call)
    assert not accepts('{"clear": 1}')
    assert not accepts("Sunny.")


def test_an_unconstrained_answer_is_text_and_calls(server):
    use = tool_use(
        server.renderer, ChatRequest.model_validate({"model": "tiny", "messages": [USER], "tools": [WEATHER]})
    )
    assert use.constraint is None
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    parts = use.parts()
    assert isinstance(parts, MessageParts)
    said = joined(
        [d for piece in (f"Let me see.\n{call}", f"\n{call}") for d in parts.push(piece)] + parts.flush()
    )
    assert said["content"] == "Let me see."
    assert [c["function"]["arguments"] for c in said["tool_calls"]] == ['{"city": "Oslo"}'] * 2
    assert len({c["id"] for c in said["tool_calls"]}) == 2


def test_a_model_that_was_trained_without_tools_refuses_them(tmp_path):
    renderer = make_bundle(tmp_path)
    with pytest.raises(Exception, match="this model takes no tools: template 'base' prints no tools"):
        tool_use(renderer, ChatRequest.model_validate({"model": "t", "messages": [USER], "tools": [WEATHER]}))


def test_the_grammar_lists_only_what_may_be_called(server):
    text = call_grammar(
        server.renderer.call_format, server.renderer.tokenizer, plain_tools([WEATHER]), parallel=False
    )
    assert "call_1" not in text
