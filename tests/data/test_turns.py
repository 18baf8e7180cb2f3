"""Turns in all their spellings are the same conversation; what cannot be honored is refused in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunebuild.data.formats import FORMATS, RowRejected, to_conversation, unused_columns
from tunebuild.prompt.messages import split_tools
from tunebuild.prompt.turns import TurnRefused, plain_turn

ASKED = {"role": "user", "content": "Name a fish."}
ANSWERED = {"role": "assistant", "content": "Carp."}
EXCHANGE = [ASKED, ANSWERED]


def messages(*turns, **columns):
    return to_conversation({"messages": list(turns), **columns}, "messages", {})


@pytest.mark.parametrize("column", ["messages", "conversations"])
@pytest.mark.parametrize(
    "turns",
    [
        EXCHANGE,
        [{"from": "human", "value": "Name a fish."}, {"from": "gpt", "value": "Carp."}],
        [{"from": "user", "content": "Name a fish."}, {"role": "model", "value": "Carp."}],
        [
            {**ASKED, "content": [{"type": "text", "text": "Name "}, {"type": "text", "text": "a fish."}]},
            ANSWERED,
        ],
        [{**ASKED, "from": None, "value": None}, {**ANSWERED, "weight": 1, "train": True, "name": None}],
    ],
)
def test_turns_read_alike_however_they_are_spelled(column, turns):
    format_name = {"messages": "messages", "conversations": "sharegpt"}[column]
    talk = to_conversation({column: turns}, format_name, {})
    assert talk.messages == EXCHANGE
    assert talk.masked == frozenset()


def test_a_developer_turn_is_a_system_turn():
    told = {"role": "developer", "content": "Be short."}
    assert messages(told, *EXCHANGE).messages[0] == {"role": "system", "content": "Be short."}


@pytest.mark.parametrize(
    ("key", "value"), [("weight", 0), ("weight", 0.0), ("train", False)], ids=["weight", "float", "train"]
)
def test_an_answer_of_no_weight_is_masked(key, value):
    talk = messages(ASKED, {**ANSWERED, key: value}, ASKED, ANSWERED)
    assert talk.masked == {1}
    assert talk.messages == EXCHANGE * 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weight": 0.5}, "turn 2 has a 'weight' of 0.5; it is 0"),
        ({"weight": 2}, "'weight' of 2"),
        ({"weight": -1}, "'weight' of -1"),
        ({"weight": True}, "'weight' of True"),
        ({"weight": "0"}, "'weight' of '0'"),
        ({"weight": [0]}, "'weight' of"),
        ({"weight": float("nan")}, "'weight' of nan"),
        ({"train": 0}, "'train' of 0; it is false"),
        ({"train": "false"}, "'train' of 'false'"),
        ({"weight": 0, "train": True}, "contradict"),
        ({"weight": 0}, "none of its answers is supervised"),
    ],
)
def test_other_weights_are_refused(changes, reason):
    with pytest.raises(RowRejected, match=reason):
        messages(ASKED, {**ANSWERED, **changes})


def test_a_question_can_have_no_weight_but_never_loss():
    assert messages({**ASKED, "weight": 0, "train": False}, ANSWERED).masked == frozenset()
    with pytest.raises(RowRejected, match="turn 1 asks for loss on a turn of the user"):
        messages({**ASKED, "train": True}, ANSWERED)


def test_a_masked_answer_may_be_empty():
    assert messages(ASKED, {**ANSWERED, "content": "", "weight": 0}, *EXCHANGE).masked == {1}


@pytest.mark.parametrize(
    ("format_name", "row"),
    [
        ("qa", {"question": "Name a fish.", "answer": "Carp."}),
        ("alpaca", {"instruction": "Name a fish.", "output": "Carp."}),
        ("prompt_completion", {"prompt": "Name a fish.", "completion": "Carp."}),
        ("messages", {"messages": EXCHANGE}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "Name a fish."}, ANSWERED]}),
    ],
)
def test_a_column_can_hold_the_system_turn(format_name, row):
    talk = to_conversation({**row, "system": "One word."}, format_name, {})
    assert talk.messages == [{"role": "system", "content": "One word."}, *EXCHANGE]
    for nothing in (None, "", "  "):
        assert to_conversation({**row, "system": nothing}, format_name, {}).messages == EXCHANGE
    with pytest.raises(RowRejected, match="column 'system' has no text"):
        to_conversation({**row, "system": 3}, format_name, {})
    mapped = to_conversation({**row, "told": "One word."}, format_name, {"system": "told"})
    assert mapped == talk


def test_two_system_texts_are_refused_and_two_equal_ones_are_one():
    told = {"role": "system", "content": "One word."}
    assert messages(told, *EXCHANGE, system="One word.").messages == [told, *EXCHANGE]
    with pytest.raises(RowRejected, match="another text in column 'system'"):
        messages(told, *EXCHANGE, system="Two words.")


def test_masks_keep_their_place_behind_a_system_column():
    talk = messages(ASKED, {**ANSWERED, "weight": 0}, *EXCHANGE, system="One word.")
    assert talk.masked == {2}


@pytest.mark.parametrize("spelled", [lambda pairs: pairs, json.dumps], ids=["list", "text"])
@pytest.mark.parametrize("format_name", ["alpaca", "qa", "prompt_completion"])
def test_earlier_exchanges_come_before_the_last(spelled, format_name):
    columns = dict(zip(("instruction", "output"), ("And a bird?", "Wren."), strict=True))
    names = {"alpaca": {}, "qa": {"question": "instruction", "answer": "output"}}.get(
        format_name, {"prompt": "instruction", "completion": "output"}
    )
    row = {**columns, "history": spelled([["Name a fish.", "Carp."]]), "system": "One word."}
    talk = to_conversation(row, format_name, names)
    assert [turn["content"] for turn in talk.messages] == [
        "One word.",
        "Name a fish.",
        "Carp.",
        "And a bird?",
        "Wren.",
    ]
    assert talk.masked == frozenset()


@pytest.mark.parametrize(
    "history",
    ["what?", {"a": "b"}, ["a", "b"], [["a"]], [["a", 1]], [["a", ""]], [["a", "b", "c"]], 7, "{}7"],
)
def test_other_histories_are_refused(history):
    with pytest.raises(RowRejected, match="column 'history'"):
        to_conversation({"question": "q", "answer": "a", "history": history}, "qa", {})


def call(arguments, **more):
    return {"id": "c7", "type": "function", "function": {"name": "depth", "arguments": arguments, **more}}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"lake": "Bled"}', {"lake": "Bled"}),
        ({"lake": "Bled"}, {"lake": "Bled"}),
        ('{"lake": "{\\"name\\": \\"Bled\\"}"}', {"lake": '{"name": "Bled"}'}),  # decoded once, not twice
        ("", {}),
        ("{}", {}),
        (None, {}),
    ],
)
def test_arguments_are_decoded_once(arguments, expected):
    turn = plain_turn({"role": "assistant", "tool_calls": [call(arguments)]})
    assert turn["tool_calls"][0]["function"]["arguments"] == expected
    assert turn["content"] == ""
    assert plain_turn(turn) == turn
    bare = plain_turn({"role": "assistant", "tool_calls": [{"name": "depth", "arguments": arguments}]})
    function = {"name": "depth", "arguments": expected}
    assert bare["tool_calls"] == [{"type": "function", "function": function}]


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        ([call("{lake}")], "calls 'depth' with arguments that are not JSON"),
        ([call('{"depth": NaN}')], "not JSON: NaN"),
        ([call(json.dumps('{"lake": "Bled"}'))], "JSON twice over"),
        ([call("[1]")], "no object"),
        ([call(7)], "no object"),
        ([{"type": "function", "function": {"arguments": "{}"}}], "without a function's name"),
        ([{**call("{}"), "type": "custom"}], "type 'custom'; only functions"),
        (["depth"], "no mapping"),
        ("depth", "no list"),
    ],
)
def test_other_calls_are_refused(calls, reason):
    with pytest.raises(RowRejected, match=f"turn 2 .*{reason}"):
        messages(ASKED, {"role": "assistant", "content": "", "tool_calls": calls})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "has no text content"),
        (3, "has no text content"),
        ({"type": "text", "text": "x"}, "has no text content"),
        ([{"type": "image_url", "image_url": {"url": "a"}}], "part of type 'image_url'; only text is read"),
        ([{"type": "input_audio"}], "part of type 'input_audio'"),
        ([{"text": "x"}], "without a type"),
        ([{"type": "text"}], "has no text"),
        (["x"], "no mapping"),
        ([{"type": "text", "text": "x", "cache_control": {}}], "'cache_control', which no prompt shows"),
    ],
)
def test_contents_that_are_no_text_are_refused(content, reason):
    with pytest.raises(RowRejected, match=f"turn 1 .*{reason}"):
        messages({"role": "user", "content": content}, ANSWERED)
    with pytest.raises(TurnRefused, match=reason):
        plain_turn({"role": "user", "content": content})


def test_columns_without_a_use_are_named():
    row = {
        "frage": "q",
        "answer": "a",
        "question": "",
        "id": 7,
        "lang": "en",
        "more": None,
        "system": "s",
        "x": [],
    }
    assert unused_columns(row, "qa", {"question": "frage"}, ["lang"]) == ["id"]
    assert unused_columns({"text": "t", "system": "s"}, "text", {}) == ["system"]
    both = {"frage": "q", "question": "other", "answer": "a"}
    assert unused_columns(both, "qa", {"question": "frage"}) == ["question"]


PLAIN_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    PLAIN_VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "from",
                    "value",
                    "type",
                    "text",
                    "tool_calls",
                    "function",
                    "name",
                    "weight",
                    "train",
                ]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
TURNS = st.fixed_dictionaries(
    {},
    optional={
        key: VALUES | st.sampled_from(["user", "assistant", "human", "gpt", "system"])
        for key in ("role", "from", "content", "value", "tool_calls", "weight", "train", "x")
    },
)
COLUMNS = st.sampled_from(
    [
        "question",
        "answer",
        "instruction",
        "input",
        "output",
        "prompt",
        "completion",
        "text",
        "system",
        "history",
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(FORMATS)),
    VALUES
    | st.dictionaries(COLUMNS, VALUES, max_size=5)
    | st.fixed_dictionaries({"messages": st.lists(TURNS), "conversations": st.lists(TURNS)}),
)
def test_any_row_is_a_conversation_or_is_rejected_in_words(format_name, row):
    try:
        talk = to_conversation(row, format_name, {})
    except RowRejected as reason:
        assert str(reason)
        return
    assert all(isinstance(turn["content"], str) for turn in talk.messages)
    assert not {"weight", "train"} & {key for turn in talk.messages for key in turn}
    assert all(talk.messages[place]["role"] == "assistant" for place in talk.masked)


TOOL = {"name": "weather", "description": "In a city.", "parameters": {"type": "object"}}
WRAPPED = {"type": "function", "function": {**TOOL, "strict": True}}


@pytest.mark.parametrize("tools", [[TOOL], [WRAPPED], json.dumps([TOOL]), [json.dumps(WRAPPED)]])
@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_tools_of_a_row_stand_before_its_turns(tools, column):
    turns = [{"role": "user", "content": "Sun?"}, {"role": "assistant", "content": "Yes."}]
    form = "messages" if column == "messages" else "sharegpt"
    talk = to_conversation({column: turns, "tools": tools, "system": "Short."}, form, {})
    assert split_tools(talk.messages) == (
        [{"type": "function", "function": TOOL}],
        [{"role": "system", "content": "Short."}, *turns],
    )


@pytest.mark.parametrize("tools", ["no JSON", {"name": "x"}, [7], [{}], [{"type": "code", "function": TOOL}]])
def test_tools_that_are_none_are_refused(tools):
    turns = [{"role": "user", "content": "Sun?"}, {"role": "assistant", "content": "Yes."}]
    with pytest.raises(RowRejected, match="column 'tools'"):
        to_conversation({"messages": turns, "tools": tools}, "messages", {})
