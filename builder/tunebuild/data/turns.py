"""A list of turns in a row: who speaks, what is said, and which answers carry no loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunebuild.prompt import Message
from tunebuild.prompt.turns import TurnRefused, plain_turn

#: Names that files give the roles.
_SPEAKERS = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function_response": "tool",
    "observation": "tool",
}
_LOSS = ("weight", "train")


class RowRejected(Exception):
    """A row cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Talk:
    """A row's conversation.

    Attributes:
        messages: its turns.
        masked: places of assistant turns that carry no loss.
    """

    messages: list[Message]
    masked: frozenset[int] = frozenset()

    def led(self, before: Sequence[Message]) -> Talk:
        """The same with turns before it."""
        return Talk([*before, *self.messages], frozenset(place + len(before) for place in self.masked))


def read_turns(column: str, turns: Any) -> Talk:
    """Turns, each with ``role`` and ``content`` or with ``from`` and ``value``.

    Raises:
        RowRejected: with the number of the turn and the reason.
    """
    if not isinstance(turns, list) or not turns:
        raise RowRejected(f"column '{column}' is not a list of turns")
    found: list[Message] = []
    masked = set()
    for place, raw in enumerate(turns):
        try:
            turn, has_loss = _turn(raw)
        except TurnRefused as refused:
            raise RowRejected(f"turn {place + 1} {refused}") from None
        found.append(turn)
        if not has_loss:
            masked.add(place)
    talk = Talk(found, frozenset(masked))
    _check(talk)
    return talk


def _turn(raw: Any) -> tuple[Message, bool]:
    """A turn, and whether it is supervised if it is an answer."""
    if not isinstance(raw, Mapping):
        raise TurnRefused("is no mapping")
    turn = {key: value for key, value in raw.items() if value is not None}
    speaker = turn.pop("role", None)
    if speaker is None:
        speaker = turn.pop("from", None)
    role = _SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        who = f"is of {speaker!r}" if isinstance(speaker, str) else "has no role"
        raise TurnRefused(f"{who}; a role is one of {', '.join(sorted(_SPEAKERS))}")
    if "content" not in turn and "value" in turn:
        turn["content"] = turn.pop("value")
    has_loss = _has_loss(role, {key: turn.pop(key) for key in _LOSS if key in turn})
    return plain_turn({"role": role, **turn}), has_loss


def _has_loss(role: str, said: Mapping[str, Any]) -> bool:
    """Whether a turn is supervised by its ``weight`` and ``train``."""
    wanted = set()
    for key, value in said.items():
        if key == "weight" and (
            isinstance(value, bool) or not isinstance(value, int | float) or value not in (0, 1)
        ):
            raise TurnRefused(f"has a 'weight' of {value!r}; it is 0 (no loss) or 1")
        if key == "train" and not isinstance(value, bool):
            raise TurnRefused(f"has a 'train' of {value!r}; it is false (no loss) or true")
        wanted.add(bool(value))
    if len(wanted) > 1:
        raise TurnRefused("has a 'weight' and a 'train' that contradict each other")
    if True in wanted and role != "assistant":
        raise TurnRefused(f"asks for loss on a turn of the {role}; only answers are supervised")
    return wanted != {False} or role != "assistant"


def _check(talk: Talk) -> None:
    answers = [place for place, turn in enumerate(talk.messages) if turn["role"] == "assistant"]
    for place in answers:
        turn = talk.messages[place]
        said = turn["content"].strip() or turn.get("tool_calls")
        # An empty answer that carries no loss is context like any other.
        if not said and place not in talk.masked:
            raise RowRejected(f"turn {place + 1}: the answer is empty")
    if talk.messages[-1]["role"] != "assistant":
        raise RowRejected("the last turn is not the assistant's")
    if talk.masked.issuperset(answers):
        raise RowRejected("none of its answers is supervised: each has weight 0 or train false")
