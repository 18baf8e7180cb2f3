"""What stands in a row and that no prompt shows, or none of a request: found by trying, for any template.

A key of a turn is used if leaving it out changes the rendered text; a content is used if it stands in it. So
nothing has to be known about a template, and nothing that a row says is lost without being counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunebuild.grammar import counted
from tunebuild.prompt import Message, PromptRefused, Renderer
from tunebuild.prompt.messages import TOOLS, with_system
from tunebuild.prompt.turns import unasked_keys

Kind = Literal["column", "key", "content", "trimmed", "changed", "block", "unasked"]

# A shorter content may stand in a prompt for another reason.
_TELLING_LENGTH = 8
_PROBE = "qzxj"
_CALL_KEYS = frozenset(("id", "type", "function"))
_FUNCTION_KEYS = frozenset(("name", "arguments"))
_LONGEST_NAME = 60
# Columns and keys that are told apart; a file in which each row has its own would fill the memory.
_MOST_NAMES = 200
_OTHERS = "others"


@dataclass(frozen=True, slots=True, order=True)
class Unused:
    """Something of a row that a prompt does not show, or that only training shows.

    Attributes:
        kind: a ``column``; a ``key`` of a turn; a turn's ``content``; an answer whose outer white space is
            ``trimmed``; a content that is ``changed`` otherwise; a ``block`` of reasoning that is text to the
            template; a key that is printed, and that is ``unasked``, since requests cannot have it.
        role: whose turn it is; empty for a column.
        name: of the column or key; else empty.
    """

    kind: Kind
    role: str = ""
    name: str = ""

    def words(self, count: int, template: str = "the template") -> str:
        """One line about all of them.

        Args:
            count: in how many rows, for a column; in how many turns else.
            template: what to call the template.
        """
        turns = counted(count, f"{self.role} turn")
        if self.kind == "column":
            more = _COLUMN_HINTS.get(self.name, "")
            return f"column '{self.name}' is not used ({counted(count, 'row')}){more and f': {more}'}"
        if self.kind == "key":
            if self.role == TOOLS:
                have = "has" if count == 1 else "have"
                return f"{template} lists no tools, and {counted(count, 'row')} {have} some"
            more = _KEY_HINTS.get(self.name, "")
            return f"'{self.name}' of {turns} is not printed by {template}{more and f': {more}'}"
        if self.kind == "content":
            return f"the content of {turns} is not printed by {template}"
        if self.kind == "trimmed":
            answers = counted(count, "answer")
            return f"{template} trims the white space around {answers}; the model does not learn it"
        if self.kind == "block":
            return (
                f"{template} prints the <think> block in {turns} as ordinary text, and the "
                "endpoint gives it back as part of the answer; a template that knows its markers has it apart"
            )
        if self.kind == "unasked":
            return (
                f"'{self.name}' of {turns} is printed by {template}, and requests cannot have it: "
                "the model is trained on a prompt that the endpoint never gives it"
            )
        return f"{template} changes the content of {turns}"


_COLUMN_HINTS = {
    "tools": "the format reads no tools; messages and sharegpt do",
    "system_prompt": "if it is the system turn, say columns: {system: system_prompt}",
    "messages": "the format reads other columns; to read these, say format: messages",
    "conversations": "the format reads other columns; to read these, say format: sharegpt",
}
_KEY_HINTS = {
    "reasoning_content": "the model does not learn to reason from it; choose a template that prints it",
}

#: Of a file, how often what is not used.
Account = Counter[Unused]


def add(account: Account, more: Mapping[Unused, int]) -> None:
    """Add to an account, in which names beyond the first many become one."""
    for unused, count in more.items():
        if unused not in account and len(account) >= _MOST_NAMES:
            unused = Unused(unused.kind, unused.role, _OTHERS)
        account[unused] += count


def columns(names: Sequence[str]) -> Iterator[Unused]:
    """Columns that are not used."""
    return (Unused("column", name=name[:_LONGEST_NAME]) for name in names)


def as_printed(renderer: Renderer, messages: Sequence[Message]) -> tuple[list[Message], Account]:
    """A conversation without what its prompts do not show, and what that is.

    Its samples are the same. Call it for a conversation that the template takes.
    """
    check = _Check(renderer, messages)
    account = check.contents()
    account += Counter(
        Unused("block", turn["role"]) for turn in messages if renderer.answers.spells_block(turn)
    )
    kept: list[Message] = []
    unprinted = check.keys()
    for place, turn in enumerate(messages):
        gone = {key for at, key in unprinted if at == place}
        account.update(Unused("key", turn["role"], key[:_LONGEST_NAME]) for key in gone)
        kept.append({key: value for key, value in turn.items() if key not in gone})
        more = unasked_keys(kept[-1]) if turn["role"] != TOOLS else ()
        account.update(Unused("unasked", turn["role"], key[:_LONGEST_NAME]) for key in more)
    account.update(check.in_calls(unprinted))
    return kept, account


class _Check:
    """Renders a conversation in variants. Texts are compared, so nothing is encoded."""

    def __init__(self, renderer: Renderer, messages: Sequence[Message]) -> None:
        self._turns = with_system(messages, renderer.settings.system)
        # The spec's system turn comes before all turns but that of the tools.
        added = len(self._turns) - len(messages)
        self._at = [place + (0 if turn["role"] == TOOLS else added) for place, turn in enumerate(messages)]
        self._messages = messages
        self._training_text = renderer.training_text
        self._texts: dict[int, str | None] = {}

    def keys(self) -> list[tuple[int, str]]:
        """Places and keys, besides role and content, that no prompt and no answer prints."""
        found: dict[tuple[str, str], list[int]] = {}
        for place, turn in enumerate(self._messages):
            for key, value in turn.items():
                if key not in ("role", "content") and value not in ("", [], {}):
                    found.setdefault((turn["role"], key), []).append(place)
        return [
            (place, key)
            for (_, key), places in found.items()
            for place in self._ignored(places, lambda turn, key=key: _without(turn, key))
        ]

    def in_calls(self, unprinted: Sequence[tuple[int, str]]) -> Account:
        """Keys inside of tool calls that are printed, besides those that hold a call together."""
        account: Account = Counter()
        for place, turn in enumerate(self._messages):
            if (place, "tool_calls") in unprinted:
                continue
            for number, call in enumerate(turn.get("tool_calls") or ()):
                for path in _more_keys(call):
                    change = lambda t, n=number, p=path: _without_in_call(t, n, p)  # noqa: E731
                    if self._ignored([place], change):
                        account[
                            Unused("key", turn["role"], f"tool_calls.{'.'.join(path)}"[:_LONGEST_NAME])
                        ] += 1
        return account

    def contents(self) -> Account:
        """Contents that are not printed as they are."""
        account: Account = Counter()
        for place, turn in enumerate(self._messages):
            content = turn["content"]
            said = content.strip()
            if not said:
                continue
            if len(said) < _TELLING_LENGTH or not self._stands(place, said):
                if self._ignored([place], lambda t: {**t, "content": t["content"] + _PROBE}):
                    account[Unused("content", turn["role"])] += 1
                    continue
                if not self._stands(place, said):
                    account[Unused("changed", turn["role"])] += 1
                    continue
            if turn["role"] == "assistant" and self._trims(place, content):
                account[Unused("trimmed", turn["role"])] += 1
        return account

    def _trims(self, place: int, content: str) -> bool:
        parts = {content.rstrip(), content.lstrip()} - {content}
        return any(self._ignored([place], lambda t, part=part: {**t, "content": part}) for part in parts)

    def _stands(self, place: int, said: str) -> bool:
        return any(said in text for text in (self._text(None), self._text(place)) if text)

    def _ignored(self, places: Sequence[int], change: Callable[..., Message]) -> list[int]:
        """Those of the places where a change of the turn changes no text."""
        whole = self._text(None)
        changed = self._changed(places, change, None)
        if len(places) == 1 and changed != whole:
            return []
        last = [place for place in places if self._at[place] == len(self._turns) - 1]
        same = changed == whole
        return [
            place
            for place in places
            if (same or self._changed([place], change, None) == whole)
            # What a template leaves out of the history it may print where the turn is the last.
            and (place in last or self._changed([place], change, place) == self._text(place))
        ]

    def _text(self, through: int | None) -> str | None:
        """The text up to a turn, or of all turns; ``None`` where the template refuses it."""
        key = -1 if through is None else through
        if key not in self._texts:
            self._texts[key] = self._rendered(self._turns, through)
        return self._texts[key]

    def _changed(
        self, places: Sequence[int], change: Callable[..., Message], through: int | None
    ) -> str | None:
        turns = list(self._turns)
        for place in places:
            turns[self._at[place]] = change(turns[self._at[place]])
        return self._rendered(turns, through)

    def _rendered(self, turns: Sequence[Message], through: int | None) -> str | None:
        some = turns if through is None else turns[: self._at[through] + 1]
        try:
            return self._training_text(some)
        except PromptRefused:
            return None


def _without(turn: Message, key: str) -> Message:
    return {name: value for name, value in turn.items() if name != key}


def _more_keys(call: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    yield from ((key,) for key in call if key not in _CALL_KEYS)
    yield from (("function", key) for key in call["function"] if key not in _FUNCTION_KEYS)


def _without_in_call(turn: Message, number: int, path: tuple[str, ...]) -> Message:
    calls = list(turn["tool_calls"])
    call = calls[number]
    if len(path) == 1:
        calls[number] = _without(call, path[0])
    else:
        calls[number] = {**call, "function": _without(call["function"], path[1])}
    return {**turn, "tool_calls": calls}
