"""Which rows a source's ``where`` takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from tunebuild.data.privacy import masked_start
from tunebuild.spec.data import Condition

_SHOWN = 60

#: Says whether a value will do.
Test = Callable[[Any], bool]


def outside(row: Mapping[str, Any], where: Mapping[str, Any]) -> str:
    """The first column whose value is not what is wanted, in words; empty for a row that is taken.

    Args:
        row: as read. A column that it does not have is ``None``.
        where: column -> a value, several values, or conditions that all hold.
    """
    for column, wanted in where.items():
        value = row.get(column)
        if isinstance(wanted, Condition):
            # In the tests of a condition every name is a word of the spec's.
            failed = next((name for name, test in _tests(wanted) if not test(value)), None)
            if failed:
                return f"column '{column}' is {_short(value)}, which '{failed}' leaves out"
        elif value not in (wanted if isinstance(wanted, tuple | list) else (wanted,)):
            return f"column '{column}' is {_short(value)}"
    return ""


def _short(value: Any) -> str:
    text = masked_start(repr(value), _SHOWN + 1)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


@lru_cache(maxsize=64)
def _tests(condition: Condition) -> tuple[tuple[str, Test], ...]:
    return tuple(_made(condition))


def _made(condition: Condition) -> Iterator[tuple[str, Test]]:
    if (among := condition.among) is not None:
        yield "in", lambda value: value in among
    if condition.other_than is not None:
        refused = condition.other_than
        unwanted = refused if isinstance(refused, tuple) else (refused,)
        yield "not", lambda value: value not in unwanted
    if (low := condition.min) is not None:
        yield "min", lambda value: (number := _number(value)) is not None and number >= low
    if (high := condition.max) is not None:
        yield "max", lambda value: (number := _number(value)) is not None and number <= high
    if condition.matches is not None:
        found = re.compile(condition.matches).search
        yield "matches", lambda value: isinstance(value, str) and found(value) is not None


def _number(value: Any) -> float | None:
    """A number, also as the text that it is in a CSV file."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) else None
