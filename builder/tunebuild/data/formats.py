"""What a row means: from a file's columns to a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunebuild.prompt import Message

#: A row as it stands in a file.
Row = Mapping[str, Any]

_ROLES = frozenset(("system", "user", "assistant", "tool"))


class RowRejected(Exception):
    """A row cannot be used; the text says why."""


def _text(row: Row, column: str, *, optional: bool = False) -> str:
    if column not in row:
        if optional:
            return ""
        raise RowRejected(f"has no column '{column}'")
    value = row[column]
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        raise RowRejected(f"column '{column}' is not text")
    if not value.strip() and not optional:
        raise RowRejected(f"column '{column}' is empty")
    return value


def _exchange(asked: str, answered: str) -> list[Message]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def _qa(row: Row) -> list[Message]:
    return _exchange(_text(row, "question"), _text(row, "answer"))


def _alpaca(row: Row) -> list[Message]:
    instruction, given = _text(row, "instruction"), _text(row, "input", optional=True)
    return _exchange(f"{instruction}\n\n{given}" if given.strip() else instruction, _text(row, "output"))


def _prompt_completion(row: Row) -> list[Message]:
    return _exchange(_text(row, "prompt"), _text(row, "completion"))


def _messages(row: Row) -> list[Message]:
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        raise RowRejected("column 'messages' is not a list of turns")
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
            raise RowRejected(f"turn {number} has no role out of {', '.join(sorted(_ROLES))}")
        if not isinstance(turn.get("content"), str):
            raise RowRejected(f"turn {number} has no text content")
        if turn["role"] == "assistant" and not turn["content"].strip():
            raise RowRejected(f"turn {number}: the answer is empty")
    if turns[-1]["role"] != "assistant":
        raise RowRejected("the last turn is not the assistant's")
    return list(turns)


FORMATS: Mapping[str, Callable[[Row], list[Message]]] = {
    "qa": _qa,
    "alpaca": _alpaca,
    "messages": _messages,
    "prompt_completion": _prompt_completion,
}


def to_conversation(row: Any, format_name: str, columns: Mapping[str, str]) -> list[Message]:
    """The conversation in a row.

    Args:
        row: the row as read; anything that is not a mapping is rejected.
        format_name: a key of :data:`FORMATS`.
        columns: the format's column name -> the file's column name.

    Raises:
        RowRejected: with the reason.
    """
    if not isinstance(row, Mapping):
        raise RowRejected("is not a mapping of columns")
    renamed = {**row, **{ours: row[theirs] for ours, theirs in columns.items() if theirs in row}}
    return FORMATS[format_name](renamed)
