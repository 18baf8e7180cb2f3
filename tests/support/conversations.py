"""Conversations as training rows and as requests, each in the spellings that files and clients have."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from tunebuild.data.formats import to_conversation
from tunebuild.data.unused import as_printed
from tunebuild.prompt import PromptRefused, Renderer
from tunebuild.prompt.messages import with_tools
from tunebuild.prompt.tools import plain_tools
from tunebuild.serve.api.schemas import ChatRequest

TEXT = st.text(st.sampled_from("ab \n<|>\"'{}\\é🧭"), min_size=1, max_size=9).filter(str.strip)
TEXTS = TEXT | st.sampled_from(["<|im_end|>", "<think>\nhm\n</think>\n\nyes", "  in  ", "[INST]", "</s>"])
VALUES = st.recursive(
    TEXT | st.integers(-9, 9) | st.booleans() | st.none() | st.just(1.5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(["look", "add.up", "f-1"])
TOOL = st.fixed_dictionaries(
    {"name": NAMES},
    optional={"description": TEXT, "parameters": st.just({"type": "object", "properties": {"é": {}}})},
)
CALL = st.fixed_dictionaries({"name": NAMES, "arguments": st.dictionaries(TEXT, VALUES, max_size=2)})


@st.composite
def conversations(draw):
    """Turns in no one's spelling: role, text, and what else there may be."""
    turns = []
    if draw(st.booleans()):
        turns.append({"role": "system", "text": draw(TEXTS)})
    for _ in range(draw(st.integers(1, 3))):
        turns.append({"role": "user", "text": draw(TEXTS), "name": draw(st.none() | NAMES)})
        if draw(st.integers(0, 3)) == 0:
            call = draw(CALL)
            turns.append({"role": "assistant", "text": draw(st.just("") | TEXT), "calls": [call]})
            turns.append(
                {"role": "tool", "text": draw(TEXT), "name": draw(st.none() | st.just(call["name"]))}
            )
        reasoning = draw(st.none() | st.just("So it is."))
        turns.append({"role": "assistant", "text": draw(TEXTS), "reasoning": reasoning})
    return turns, draw(st.lists(TOOL, max_size=2, unique_by=lambda tool: tool["name"]))


@st.composite
def parts(draw, text):
    """A content, whole or in parts."""
    if draw(st.booleans()):
        return text
    cut = draw(st.integers(0, len(text)))
    return [{"type": "text", "text": piece} for piece in (text[:cut], text[cut:])]


@st.composite
def shuffled(draw, mapping):
    """The same keys in another order, as files have them."""
    return {key: mapping[key] for key in draw(st.permutations(list(mapping)))}


@st.composite
def rows(draw, turns, tools):
    """The conversation as a row of some form."""
    sharegpt = draw(st.booleans())
    told, spelled = turns, []
    row = {}
    if turns[0]["role"] == "system" and draw(st.booleans()):
        row["system"], told = draw(parts(turns[0]["text"])), turns[1:]
    for number, turn in enumerate(told, len(turns) - len(told)):
        roles = {"system": ["system", "developer"], "user": ["user", "human"]}
        roles |= {"assistant": ["assistant", "gpt"], "tool": ["tool", "observation"]}
        role = draw(st.sampled_from(roles[turn["role"]]))
        one = {draw(st.sampled_from(["role", "from"])): role}
        one[draw(st.sampled_from(["content", "value"]))] = draw(parts(turn["text"]))
        one |= draw(beside_content(turn, number))
        if turn.get("calls"):
            one["tool_calls"] = [draw(calls(call, f"call{number:05}")) for call in turn["calls"]]
        for nothing in draw(st.sets(st.sampled_from(["tool_calls", "name", "refusal", "annotations"]))):
            one.setdefault(nothing, draw(st.sampled_from([None, []])))
        if turn["role"] == "assistant" and draw(st.booleans()):
            one |= {"weight": 1, "train": True}
        spelled.append(draw(shuffled(one)))
    row["conversations" if sharegpt else "messages"] = spelled
    if tools:
        wrapped = [tool if draw(st.booleans()) else {"type": "function", "function": tool} for tool in tools]
        row["tools"] = draw(st.sampled_from([wrapped, json.dumps(wrapped), list(map(json.dumps, wrapped))]))
    return "sharegpt" if sharegpt else "messages", row


@st.composite
def beside_content(draw, turn, number):
    """What a turn has besides role, content and calls, the same in a row and in a request."""
    one = {}
    if turn.get("name"):
        one["name"] = turn["name"]
    if turn.get("reasoning"):
        one[draw(st.sampled_from(["reasoning_content", "reasoning", "thinking"]))] = turn["reasoning"]
    if turn["role"] == "tool":
        one["tool_call_id"] = f"call{number - 1:05}"
    return one


@st.composite
def calls(draw, call, call_id):
    arguments = draw(st.sampled_from([call["arguments"], json.dumps(call["arguments"])]))
    function = draw(shuffled({"name": call["name"], "arguments": arguments}))
    if draw(st.booleans()):
        return draw(shuffled({**function, "id": call_id}))
    more = draw(st.sampled_from([{}, {"type": "function"}, {"type": None, "index": 0}]))
    return draw(shuffled({"id": call_id, "function": function, **more}))


@st.composite
def requests(draw, turns, tools):
    """The conversation before its last answer as a request."""
    messages = []
    for number, turn in enumerate(turns[:-1]):
        role = draw(st.sampled_from(["system", "developer"])) if turn["role"] == "system" else turn["role"]
        one = {"role": role, "content": draw(parts(turn["text"]))}
        one |= draw(beside_content(turn, number))
        if turn.get("calls"):
            if not turn["text"]:
                one["content"] = draw(st.sampled_from(["", None]))
            one["tool_calls"] = [
                draw(shuffled({
                    "id": f"call{number:05}", "type": "function",
                    "function": {"arguments": json.dumps(call["arguments"]), "name": call["name"]},
                }))
                for call in turn["calls"]
            ]  # fmt: skip
        elif turn["role"] == "assistant":
            one |= draw(st.sampled_from([{}, {"refusal": None, "annotations": [], "tool_calls": None}]))
        messages.append(draw(shuffled(one)))
    body = {"model": "m", "messages": messages}
    return {**body, "tools": [{"type": "function", "function": tool} for tool in tools]} if tools else body


def trained_behind(renderer: Renderer, talk) -> list[int]:
    """The ids before the last answer of a row, as the build makes them."""
    messages = renderer.separated(talk.messages)
    sample = renderer.examples(messages)[-1][1]
    assert renderer.examples(as_printed(renderer, messages)[0])[-1][1] == sample
    return sample.ids[: sample.supervised[-1][0]]


def asked_with(renderer: Renderer, body) -> list[int]:
    """The ids of a request, as the server makes them."""
    read = ChatRequest.model_validate_json(json.dumps(body))
    tools = plain_tools([tool.raw() for tool in read.tools or ()])
    return renderer.prompt_ids(with_tools([message.plain() for message in read.messages], tools))


def agrees(renderer: Renderer, data: st.DataObject) -> bool:
    """Whether the template takes such a conversation; if so, both sides agree on it."""
    turns, tools = data.draw(conversations())
    form, row = data.draw(rows(turns, tools))
    body = data.draw(requests(turns, tools))
    talk = to_conversation(json.loads(json.dumps(row)), form, {})
    try:
        trained = trained_behind(renderer, talk)
    except PromptRefused:
        return False
    assert asked_with(renderer, body) == trained
    return True
