"""What a row means: from a file's columns to a conversation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tunebuild.data.turns import RowRejected, Talk, read_turns
from tunebuild.prompt import Message
from tunebuild.prompt.messages import with_tools
from tunebuild.prompt.tools import ToolRefused, plain_tools
from tunebuild.prompt.turns import TurnRefused, joined_text

#: A row as it stands in a file.
Row = Mapping[str, Any]

__all__ = ["FORMATS", "PLAIN", "RowRejected", "Talk", "detect_format", "to_conversation", "unused_columns"]


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


def _led(row: Row, exchange: list[Message]) -> Talk:
    """An exchange after the earlier ones and the system turn that stand in columns of their own."""
    return _with_system(row, Talk([*_history(row), *exchange]))


def _history(row: Row) -> list[Message]:
    """Earlier exchanges: pairs of what was asked and answered. In a table's cell they are JSON."""
    pairs = row.get("history")
    if isinstance(pairs, str) and pairs.strip():
        try:
            pairs = json.loads(pairs)
        except (ValueError, RecursionError):
            raise RowRejected("column 'history' is no list of pairs, and no JSON of one") from None
    if not pairs or (isinstance(pairs, str) and not pairs.strip()):
        return []
    if not isinstance(pairs, list):
        raise RowRejected("column 'history' is no list of pairs")
    turns: list[Message] = []
    for number, pair in enumerate(pairs, 1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RowRejected(f"column 'history': item {number} is no pair of a question and an answer")
        if not all(text.strip() for text in pair):
            raise RowRejected(f"column 'history': item {number} has an empty question or answer")
        turns += _exchange(*pair)
    return turns


def _with_system(row: Row, talk: Talk) -> Talk:
    """A conversation with the system turn of the column ``system``, unless it begins with just that."""
    try:
        system = joined_text(row["system"]) if row.get("system") is not None else ""
    except TurnRefused as refused:
        raise RowRejected(f"column 'system' {refused}") from None
    if not system.strip():
        return talk
    if talk.messages[0]["role"] != "system":
        return talk.led([{"role": "system", "content": system}])
    if talk.messages[0]["content"] != system:
        raise RowRejected("has a system turn, and another text in column 'system'")
    return talk


def _with_tools(row: Row, talk: Talk) -> Talk:
    """A conversation whose prompts list the tools of the column ``tools``."""
    try:
        tools = plain_tools(row.get("tools"))
    except ToolRefused as refused:
        raise RowRejected(f"column 'tools' {refused}") from None
    return talk.led(with_tools([], tools)) if tools else talk


def _qa(row: Row) -> Talk:
    return _led(row, _exchange(_text(row, "question"), _text(row, "answer")))


def _alpaca(row: Row) -> Talk:
    instruction, given = _text(row, "instruction"), _text(row, "input", optional=True)
    asked = f"{instruction}\n\n{given}" if given.strip() else instruction
    return _led(row, _exchange(asked, _text(row, "output")))


def _prompt_completion(row: Row) -> Talk:
    return _led(row, _exchange(_text(row, "prompt"), _text(row, "completion")))


def _messages(row: Row) -> Talk:
    return _conversation(row, "messages")


def _sharegpt(row: Row) -> Talk:
    return _conversation(row, "sharegpt")


def _conversation(row: Row, format_name: str) -> Talk:
    column = _column_of_turns(row, format_name)
    return _with_tools(row, _with_system(row, read_turns(column, row.get(column))))


def _column_of_turns(row: Row, format_name: str) -> str:
    """The format's own column, or the other where a row has only that: files hold rows of both kinds."""
    (own,), other = TELLING[format_name], _OTHER_TURNS[format_name]
    return other if row.get(own) is None and row.get(other) is not None else own


def _plain_text(row: Row) -> Talk:
    return Talk([{"role": PLAIN, "content": _text(row, "text")}])


#: Role of text that stands in no conversation: all of it is supervised, in no template.
PLAIN = "text"

FORMATS: Mapping[str, Callable[[Row], Talk]] = {
    "qa": _qa,
    "alpaca": _alpaca,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "prompt_completion": _prompt_completion,
    "text": _plain_text,
}

#: Columns that a format reads where they are there, besides those that tell it.
_MORE: Mapping[str, frozenset[str]] = {
    "qa": frozenset(("system", "history")),
    "alpaca": frozenset(("input", "system", "history")),
    "messages": frozenset(("system", "tools")),
    "sharegpt": frozenset(("system", "tools")),
    "prompt_completion": frozenset(("system", "history")),
    "text": frozenset(),
}

#: Columns that tell a format, and that it needs, in the order they are looked for.
TELLING: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "qa": ("question", "answer"),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
}


#: Where a format's turns stand in rows of the other kind.
_OTHER_TURNS: Mapping[str, str] = {"messages": "conversations", "sharegpt": "messages"}


def detect_format(row: Any, columns: Mapping[str, str]) -> str | None:
    """The format that a row's columns tell, or ``None``."""
    if not isinstance(row, Mapping):
        return None
    present = {*row, *(ours for ours, theirs in columns.items() if theirs in row)}
    return next((name for name, telling in TELLING.items() if present.issuperset(telling)), None)


def to_conversation(row: Any, format_name: str, columns: Mapping[str, str]) -> Talk:
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
    return FORMATS[format_name](_renamed(row, columns))


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    """A row with the format's own names for its columns, besides the file's."""
    return {**row, **{ours: row[theirs] for ours, theirs in columns.items() if theirs in row}}


def unused_columns(
    row: Row, format_name: str, columns: Mapping[str, str], chosen_by: Iterable[str] = ()
) -> list[str]:
    """Columns of a row that hold something and of which its conversation has nothing.

    Args:
        row, format_name, columns: as in :func:`to_conversation`.
        chosen_by: columns that rows are chosen by.
    """
    read = {*TELLING[format_name], *_MORE[format_name]}
    if format_name in _OTHER_TURNS:
        read.add(_column_of_turns(_renamed(row, columns), format_name))
    taken = {columns[ours] if columns.get(ours) in row else ours for ours in read}
    taken.update(chosen_by)
    return [str(name) for name, value in row.items() if name not in taken and value not in (None, "", [], {})]
