"""The clients that users have, against a real server: the official one, LangChain's."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

from support.endpoint import make_bundle, serving
from tunebuild.spec.model import PromptSpec

USER = {"role": "user", "content": "Sun in Rome?"}


class Sky(BaseModel, extra="forbid"):
    """What the sky is like. Random weights would add properties for as long as they are let."""

    clear: bool


class Weather(BaseModel, extra="forbid"):
    """The weather in a city."""

    wanted: bool


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bundle")
    prompt = PromptSpec(template="qwen", system="Be brief.")
    with serving(directory, make_bundle(directory, prompt=prompt, context=2048)) as running:
        yield running


@pytest.fixture(scope="module")
def asked(server):
    return {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0}


#: Random weights write white space in JSON for as long as they are let.
SETTINGS = {"model": "tiny", "temperature": 1.5, "seed": 5, "max_tokens": 200}


def test_openai_sync_async_and_streamed_are_one_answer(asked):
    options = {**SETTINGS, "messages": [USER], "max_tokens": 12, "temperature": 0}
    whole = openai.OpenAI(**asked).chat.completions.create(**options).choices[0].message.content

    async def stream():
        async with openai.AsyncOpenAI(**asked) as client:
            text = ""
            async for chunk in await client.chat.completions.create(**options, stream=True):
                text += chunk.choices[0].delta.content or ""
            reply = await client.chat.completions.create(**options)
            return text, reply.choices[0].message.content

    assert asyncio.run(stream()) == (whole, whole)


def test_openai_parses_an_answer_into_a_model_and_calls_into_tools(asked):
    client = openai.OpenAI(**asked)
    parsed = client.chat.completions.parse(**SETTINGS, messages=[USER], response_format=Sky)
    assert isinstance(parsed.choices[0].message.parsed, Sky)
    tool = openai.pydantic_function_tool(Weather)
    reply = client.chat.completions.parse(
        **SETTINGS, messages=[USER], tools=[tool], tool_choice="required", parallel_tool_calls=False
    )
    message = reply.choices[0].message
    assert isinstance(message.tool_calls[0].function.parsed_arguments, Weather)
    # What came back is sent back whole, as the client has it.
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Sunny."}
    turns = [USER, message, result]
    again = client.chat.completions.create(**{**SETTINGS, "max_tokens": 4}, messages=turns, tools=[tool])
    assert again.usage.prompt_tokens > reply.usage.prompt_tokens


@pytest.fixture(scope="module")
def chat(asked):
    return ChatOpenAI(**asked, model="tiny", temperature=1.5, seed=5, max_tokens=200)


def test_langchain_chats_whole_streamed_and_in_batches(chat):
    whole = chat.invoke("Hello", max_tokens=8).content
    assert "".join(chunk.content for chunk in chat.stream("Hello", max_tokens=8)) == whole
    assert [reply.content for reply in chat.batch(["Hello", "Hello"], max_tokens=8)] == [whole] * 2
    assert asyncio.run(chat.ainvoke("Hello", max_tokens=8)).content == whole


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_structures_an_answer(chat, method):
    assert isinstance(chat.with_structured_output(Sky, method=method).invoke("Sky?"), Sky)


def test_langchain_calls_tools_and_gives_their_answers_back(chat):
    bound = chat.bind_tools([Weather], tool_choice="Weather")
    reply = bound.invoke("Sun in Rome?")
    (call,) = reply.tool_calls
    assert call["name"] == "Weather"
    assert isinstance(call["args"]["wanted"], bool)
    streamed = None
    for chunk in bound.stream("Sun in Rome?"):
        streamed = chunk if streamed is None else streamed + chunk
    assert [(c["name"], c["args"]) for c in streamed.tool_calls] == [("Weather", call["args"])]
    turns = [HumanMessage("Sun?"), reply, ToolMessage("Sunny.", tool_call_id=call["id"])]
    assert isinstance(chat.bind_tools([Weather]).invoke(turns, max_tokens=4), AIMessage)


def test_langchains_completion_class_continues_text(asked):
    model = OpenAI(**asked, model="tiny", temperature=0, max_tokens=6)
    whole = model.invoke("hello world")
    assert whole
    assert "".join(model.stream("hello world")) == whole
    assert len(model.generate(["hello", "world"]).generations) == 2


def test_a_schema_is_kept_to_whatever_the_client(asked):
    raw = openai.OpenAI(**asked).chat.completions.with_raw_response.create(
        **SETTINGS, messages=[USER], response_format={"type": "json_object"}, top_p=0.5
    )
    body = json.loads(raw.text)
    assert raw.headers["x-request-id"]
    assert body["choices"][0]["finish_reason"] in ("stop", "length")


def test_litellm_chats_whole_and_streamed_and_calls_tools(server, monkeypatch):
    # Else it fetches a list of prices as it is imported.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    options = {"model": "openai/tiny", "api_base": f"{server.url}/v1", "api_key": "none", "messages": [USER]}
    whole = litellm.completion(**options, temperature=0, max_tokens=8).choices[0].message.content
    chunks = litellm.completion(**options, temperature=0, max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    tool = openai.pydantic_function_tool(Weather)
    settings = {
        **SETTINGS,
        **options,
        "tools": [tool],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
    reply = litellm.completion(**settings).choices[0]
    assert reply.finish_reason == "tool_calls"
    assert isinstance(json.loads(reply.message.tool_calls[0].function.arguments)["wanted"], bool)
