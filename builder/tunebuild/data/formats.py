"""What a row means: from a file's columns to a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunebuild.prompt import Message

#: A row as it stands in a file.
Row = Mapping[str, Any]

_ROLES = frozenset(("system", "user", "assistant", "tool"))
# Names that ShareGPT files give the roles.
_SHAREGPT = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "system": "system",
    "tool": "tool",
    "function_response": "tool",
    "observation": "tool",
}


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
    return _checked([_turn(number, turn) for number, turn in enumerate(turns, 1)])


def _turn(number: int, turn: Any) -> Message:
    if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
        raise RowRejected(f"turn {number} has no role out of {', '.join(sorted(_ROLES))}")
    # Tables fill what a turn does not have with null; a template must not see the difference.
    kept = {key: value for key, value in turn.items() if value is not None}
    if kept.get("tool_calls"):
        kept.setdefault("content", "")
    if not isinstance(kept.get("content"), str):
        raise RowRejected(f"turn {number} has no text content")
    return kept


def _sharegpt(row: Row) -> list[Message]:
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise RowRejected("column 'conversations' is not a list of turns")
    found: list[Message] = []
    for number, turn in enumerate(turns, 1):
        role = _SHAREGPT.get(str(turn.get("from"))) if isinstance(turn, Mapping) else None
        if role is None:
            known = ", ".join(sorted(_SHAREGPT))
            raise RowRejected(f"turn {number} comes from none of {known}")
        if not isinstance(turn.get("value"), str):
            raise RowRejected(f"turn {number} has no text value")
        found.append({"role": role, "content": turn["value"]})
    return _checked(found)


def _checked(turns: list[Message]) -> list[Message]:
    for number, turn in enumerate(turns, 1):
        if turn["role"] == "assistant" and not turn["content"].strip() and not turn.get("tool_calls"):
            raise RowRejected(f"turn {number}: the answer is empty")
    if turns[-1]["role"] != "assistant":
        raise RowRejected("the last turn is not the assistant's")
    return turns


def _plain_text(row: Row) -> list[Message]:
    return [{"role": PLAIN, "content": _text(row, "text")}]


#: Role of text that stands in no conversation: all of it is learnt, in no template.
PLAIN = "text"

FORMATS: Mapping[str, Callable[[Row], list[Message]]] = {
    "qa": _qa,
    "alpaca": _alpaca,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "prompt_completion": _prompt_completion,
    "text": _plain_text,
}

#: Formats whose rows may list the tools that turns call.
CONVERSATIONS = frozenset(("messages", "sharegpt"))

#: Columns that tell a format, and that it needs, in the order they are looked for.
TELLING: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "qa": ("question", "answer"),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
}


def detect_format(row: Any, columns: Mapping[str, str]) -> str | None:
    """The format that a row's columns tell, or ``None``."""
    if not isinstance(row, Mapping):
        return None
    present = {*row, *(ours for ours, theirs in columns.items() if theirs in row)}
    return next((name for name, telling in TELLING.items() if present.issuperset(telling)), None)


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
