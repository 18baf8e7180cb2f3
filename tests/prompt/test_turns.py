"""One turn, however files and requests spell it, is one turn to a template."""

from __future__ import annotations

import json
from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunebuild.prompt.turns import ROLES, TurnRefused, joined_text, plain_turn, unasked_keys

names = st.text("abcdefghij_", min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


def turn(**keys):
    return {"role": "user", "content": "a", **keys}


def answer(**keys):
    return {"role": "assistant", "content": "a", **keys}


def call(**keys):
    return answer(tool_calls=[keys])


def called(**keys):
    return plain_turn(call(**keys))["tool_calls"][0]


def test_a_plain_turn_stays_as_it_is():
    for role in sorted(ROLES):
        assert plain_turn({"role": role, "content": " a\n"}) == {"role": role, "content": " a\n"}
    assert plain_turn({"role": "developer", "content": "a"}) == {"role": "system", "content": "a"}
    assert {"system", "user", "assistant", "tool"} == ROLES


def test_a_plain_turn_is_not_the_one_given():
    given_turn = answer(thinking="b", tool_calls=[{"name": "f", "index": 0}], weight=None)
    before = json.dumps(given_turn)
    plain_turn(given_turn)
    assert json.dumps(given_turn) == before


@pytest.mark.parametrize("empty", [None, [], {}, ()], ids=str)
def test_what_holds_nothing_is_left_out(empty):
    if empty != ():
        assert plain_turn(turn(name=empty, other=empty)) == turn()
        assert plain_turn(answer(tool_calls=empty, reasoning=empty)) == answer()
    for something in ("", 0, False):
        assert plain_turn(turn(name=something))["name"] == something


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(extra=st.dictionaries(names, values, max_size=4))
def test_keys_that_requests_have_come_first_and_all_others_stay(extra):
    extra = {key: value for key, value in extra.items() if key not in ("role", "content", "name")}
    found = plain_turn({**extra, "tool_call_id": "c", "content": "a", "name": "n", "role": "tool"})
    asked = ["role", "content", "tool_call_id", "name"]
    kept = [k for k, v in extra.items() if v is not None and v != [] and v != {}]
    assert list(found) == [*asked, *kept]
    assert all(found[key] == extra[key] for key in kept)
    assert unasked_keys(found) == kept


def test_no_key_of_a_request_is_unasked():
    whole = plain_turn(call(name="f") | {"thinking": "b", "tool_call_id": "c", "name": "n"})
    assert list(whole) == ["role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name"]
    assert unasked_keys(whole) == []


# Content


def test_parts_follow_each_other_directly():
    assert joined_text([{"type": "text", "text": t} for t in ("a", " b", "", "c")]) == "a bc"
    assert plain_turn(turn(content=[])) == turn(content="")
    assert joined_text([{"type": "text", "text": "a", "cache_control": None}]) == "a"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "has no text content"),
        (7, "has no text content"),
        ({"type": "text", "text": "a"}, "has no text content"),
        ([{"type": "text", "text": "a"}, "b"], "part 2 is no mapping"),
        ([{"type": "image_url", "image_url": "u"}], "part of type 'image_url'"),
        ([{"text": "a"}], "part without a type"),
        ([{"type": 3, "text": "a"}], "part without a type"),
        ([{"type": "text"}], "part 1 has no text"),
        ([{"type": "text", "text": 5}], "part 1 has no text"),
        ([{"type": "text", "text": "a", "z": 1, "cache": {}}], "'cache', 'z', which no prompt shows"),
    ],
    ids=str,
)
def test_content_that_is_no_text_is_refused(content, why):
    with pytest.raises(TurnRefused, match=why):
        plain_turn(turn(content=content))


def test_a_turn_without_content_is_refused_unless_it_calls():
    for role in ("user", "assistant"):
        with pytest.raises(TurnRefused, match="has no text content"):
            plain_turn({"role": role})
    for content in ({}, {"content": None}):
        found = plain_turn({"role": "assistant", "tool_calls": [{"name": "f"}], **content})
        assert found["content"] == ""
    assert plain_turn(call(name="f"))["content"] == "a"


# Reasoning

KEYS = ("reasoning_content", "reasoning", "thinking")


@pytest.mark.parametrize("key", KEYS)
def test_reasoning_has_one_key_in_an_answer_alone(key):
    assert plain_turn(answer(**{key: " b "})) == answer(reasoning_content=" b ")
    assert plain_turn(answer(**{key: [{"type": "text", "text": "b"}]})) == answer(reasoning_content="b")
    assert plain_turn(answer(**{key: " \n"})) == answer()
    assert plain_turn(turn(**{key: "b"})) == turn(**{key: "b"})
    for odd in (3, True, {"b": "c"}):
        with pytest.raises(TurnRefused, match=f"has a '{key}' that is no text"):
            plain_turn(answer(**{key: odd}))


@pytest.mark.parametrize(("one", "other"), [*permutations(KEYS, 2)])
def test_reasoning_under_two_keys_is_the_same_or_refused(one, other):
    assert plain_turn(answer(**{one: "b", other: "b"})) == answer(reasoning_content="b")
    assert plain_turn(answer(**{one: "b", other: " "})) == answer(reasoning_content="b")
    with pytest.raises(TurnRefused, match="that differ") as caught:
        plain_turn(answer(**{one: "b", other: "c"}))
    assert f"'{one}'" in str(caught.value)
    assert f"'{other}'" in str(caught.value)


# Calls

CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}


@pytest.mark.parametrize(
    "spelling",
    [
        CALL,
        {"function": {"name": "f", "arguments": '{"a": 1}'}},
        {"name": "f", "arguments": {"a": 1}},
        {"name": "f", "arguments": ' {"a":1}', "type": "function"},
        {**CALL, "index": 3, "id": None, "extra": None},
        {"function": {"name": "f", "arguments": {"a": 1}, "description": None}},
        {"function": None, "name": "f", "arguments": {"a": 1}},
    ],
    ids=str,
)
def test_a_call_has_one_form(spelling):
    assert called(**spelling) == CALL
    assert called(id="c", **{k: v for k, v in spelling.items() if k != "id"}) == {"id": "c", **CALL}


def test_what_else_a_call_says_stays_where_it_stands():
    found = called(id="c", function={"name": "f", "strict": True}, more="m")
    assert found == {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": {}, "strict": True},
        "more": "m",
    }
    assert list(found) == ["id", "type", "function", "more"]
    assert list(found["function"]) == ["name", "arguments", "strict"]
    flat = called(id="c", name="f", strict=True)
    assert flat == {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": {}, "strict": True},
    }


@pytest.mark.parametrize("nothing", [None, "", {}, "{}"], ids=repr)
def test_a_call_without_arguments_has_none(nothing):
    assert called(name="f", arguments=nothing)["function"]["arguments"] == {}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("{", "that are not JSON"),
        ("NaN", "NaN is no JSON"),
        ('{"a": Infinity}', "Infinity is no JSON"),
        ("[" * 200_000, "that are not JSON"),
        (json.dumps('{"a": 1}'), "twice over"),
        ('["a"]', "no object"),
        (["a"], "no object"),
        ("3", "no object"),
        (3, "no object"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_arguments_that_are_no_object_are_refused(arguments, why):
    with pytest.raises(TurnRefused, match=f"^calls 'f' with arguments .*{why}"):
        called(name="f", arguments=arguments)


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        ({"name": "f"}, "has 'tool_calls' that are no list"),
        ("f", "has 'tool_calls' that are no list"),
        ([CALL, "f"], r"has a tool call \(2\) that is no mapping"),
        ([{**CALL, "type": "custom"}], r"has a tool call \(1\) of type 'custom'"),
        ([CALL, {"function": {"arguments": "{}"}}], r"has a tool call \(2\) without a function's name"),
        ([{"function": "f"}], r"\(1\) without a function's name"),
        ([{"function": {"name": ""}}], r"\(1\) without a function's name"),
        ([{"function": {"name": 3}}], r"\(1\) without a function's name"),
        ([{"arguments": {}}], r"\(1\) without a function's name"),
    ],
    ids=str,
)
def test_calls_that_cannot_be_made_are_refused(calls, why):
    with pytest.raises(TurnRefused, match=why):
        plain_turn(answer(tool_calls=calls))


def test_calls_keep_their_order():
    found = plain_turn(answer(tool_calls=[{"name": name} for name in "gfh"]))["tool_calls"]
    assert [one["function"]["name"] for one in found] == ["g", "f", "h"]
