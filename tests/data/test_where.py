"""Rows are taken exactly where every condition holds, and the reason names the first that does not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebuild.data.where import outside
from tunebuild.spec.data import Condition


def condition(**words):
    return Condition.model_validate(words)


@pytest.mark.parametrize(
    ("value", "wanted", "taken"),
    [
        (0.8, {"min": 0.8}, True),
        (0.79, {"min": 0.8}, False),
        ("0.9", {"min": 0.8}, True),
        ("much", {"min": 0.8}, False),
        (None, {"min": 0}, False),
        (True, {"min": 0}, False),
        ("nan", {"min": 0}, False),
        (5, {"min": 1, "max": 4}, False),
        ("a", {"in": ["a", "b"]}, True),
        (None, {"in": ["a"]}, False),
        (None, {"in": [None]}, True),
        ("draft", {"not": "draft"}, False),
        (None, {"not": "draft"}, True),
        ("old", {"not": ["draft", "old"]}, False),
        ("How do I?", {"matches": "(?i)^how "}, True),
        ("And how do I?", {"matches": "(?i)^how "}, False),
        (7, {"matches": "7"}, False),
        ("abc", {"matches": "b", "not": "abc"}, False),
    ],
)
def test_conditions(value, wanted, taken):
    reason = outside({"x": value}, {"x": condition(**wanted)})
    assert (reason == "") == taken
    assert taken or reason.startswith("column 'x' is ")


def test_a_column_that_is_missing_is_null():
    assert outside({}, {"x": condition(**{"not": None})}) == ""  # not given is no condition
    assert outside({}, {"x": condition(**{"not": [None]})}) == "column 'x' is None, which 'not' leaves out"


def test_long_values_are_cut():
    assert len(outside({"x": "long" * 1000}, {"x": "short"})) < 100


@pytest.mark.parametrize("before", ["It is somewhere else, namely at ", "\n"])
def test_values_are_cut_after_they_are_masked(before):
    value = f"{before}hf" + "_aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3"
    assert "aB3dE5" not in outside({"x": value}, {"x": "short"})


numbers = st.one_of(st.none(), st.integers(-5, 5), st.sampled_from(["-1", "2", "x", ""]))


@given(row=st.fixed_dictionaries({"a": numbers, "b": numbers}), low=st.integers(-5, 5), word=numbers)
def test_all_must_hold(row, low, word):
    def number(value):
        return float(value) if value is not None and re.fullmatch(r"-?\d+", str(value)) else None

    expected = (a := number(row["a"])) is not None and a >= low and row["b"] != word
    where = {"a": condition(min=low), "b": condition(**{"not": [word]})}
    assert (outside(row, where) == "") == expected
