"""Parses tool calls back from an answer, as its text arrives, by the format that training printed.

White space between the parts of a call is not compared. What turns out not to be a call is text.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunebuild.prompt.calls import CallFormat, Slot
from tunebuild.prompt.tools import TOOL_NAME

_LONGEST_WORD = 256


@dataclass(frozen=True, slots=True)
class PlainText:
    """Text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call's name is known; ``call_id`` is what the model wrote, empty where the template prints none."""

    index: int
    name: str
    call_id: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of the JSON of a call's arguments."""

    index: int
    text: str


Part = PlainText | CallBegun | CallArguments


class _Wait(Exception):
    """More text has to come."""


class _NoCall(Exception):
    """What began as a call is none."""


class CallParser:
    """Splits one answer. Feed it text with :meth:`push` and end with :meth:`flush`.

    Args:
        call_format: of the template.
        parallel: whether more than one call is taken; else all that follows the first one is dropped.
    """

    def __init__(self, call_format: CallFormat, *, parallel: bool = True) -> None:
        self._format = call_format
        self._most = None if parallel else 1
        self.calls = 0
        """Calls that have begun and ended so far."""
        self._held = ""
        self._parts: list[Part] = []
        self._final = False
        self._said = False
        self._step = self._say
        # Of the call at hand: slots that are read, what words they hold, what of its JSON has been told, and
        # all of its text, should it turn out to be none.
        self._done: list[Slot] = []
        self._words: dict[Slot, str] = {}
        self._json = _JsonEnd()
        self._told = 0
        self._begun = False
        self._read = ""

    def push(self, text: str) -> list[Part]:
        """Take a piece of the answer; what is certain now."""
        self._held += text
        return self._drain()

    def flush(self) -> list[Part]:
        """The answer is over; the rest of it."""
        self._final = True
        return self._drain()

    def _drain(self) -> list[Part]:
        self._parts = []
        try:
            while True:
                try:
                    self._step()
                except _NoCall:
                    self._give_up()
        except _Wait:
            return _joined(self._parts)

    def _say(self) -> None:
        """Text, up to the beginning of a call."""
        if self.calls == self._most:
            self._held = ""
            raise _Wait
        gap = self._format.gap
        for at in self._starts():
            stop = match(self._held, at, self._format.lead)
            if stop is None and not self._final:
                before = self._held[:at]
                self._out(len(before.rstrip()) if gap else at)
                raise _Wait
            if stop is not None and stop >= 0:
                between = len(gap) if self._held[:at].endswith(gap) else 0
                self._out(at - between)
                self._held = self._held[between:]
                self._open()
                self._take(stop - at)
                self._step = self._call
                return
        # White space may be what stands between a text and a call.
        hold = not self._final and (gap or (self._format.bare and not self._said))
        self._out(len(self._held.rstrip()) if hold else len(self._held))
        raise _Wait

    def _starts(self) -> list[int]:
        first = self._format.lead[0]
        if not self._format.bare:
            return [at for at, character in enumerate(self._held) if character == first]
        at = len(self._held) - len(self._held.lstrip())
        return [at] if not self._said and not self.calls and self._held.startswith(first, at) else []

    def _call(self) -> None:
        """The slots of a call and the literals between them."""
        slots = self._format.slots
        while True:
            slot = slots[len(self._done)]
            self._arguments() if slot == "arguments" else self._word(slot)
            if len(self._done) + 1 == len(slots):
                break
            self._literal(self._format.inside[len(self._done)])
            self._done.append(slot)
        self._begin()
        self.calls += 1
        self._step = self._behind

    def _literal(self, literal: str) -> None:
        stop = match(self._held, 0, literal)
        if stop is None and not self._final:
            raise _Wait
        if stop is None or stop < 0:
            raise _NoCall
        self._take(stop)

    def _word(self, slot: Slot) -> None:
        """A name or an id, up to where the literal behind it begins."""
        if slot in self._words:
            return
        number = len(self._done)
        inside, format_ = self._format.inside, self._format
        behind = inside[number] if number < len(inside) else format_.end or format_.again or ""
        stop = self._held.find(behind.strip()[0]) if behind.strip() else -1
        if stop < 0:
            if not self._final and len(self._held) <= _LONGEST_WORD:
                raise _Wait
            if behind.strip() or not self._final:
                raise _NoCall
            stop = len(self._held)
        word = self._held[:stop].strip()
        if not (TOOL_NAME.fullmatch(word) if slot == "name" else word):
            raise _NoCall
        self._words[slot] = word
        self._take(stop)

    def _arguments(self) -> None:
        if self._json.ended():
            return
        if not self._json.text:
            self._take(len(self._held) - len(self._held.lstrip()))
            if not self._held and not self._final:
                raise _Wait
            if not self._held.startswith("{"):
                raise _NoCall
        length = self._json.push(self._held)
        # Once all but the arguments is known, they are handed on as they come.
        if len(self._words) + 1 == len(self._format.slots):
            self._begin()
        elif self._final and not self._json.ended():
            raise _NoCall
        self._take(length)
        if self._json.ended():
            return
        if self._final:
            # It ended too early, as at max_tokens. What has been told of it is a call all the same.
            self.calls += 1
            self._step = self._say
        raise _Wait

    def _begin(self) -> None:
        """Tell of the call, and of its arguments as far as they are known and have not been told."""
        if not self._begun:
            self._begun = True
            self._parts.append(CallBegun(self.calls, self._words["name"], self._words.get("id", "")))
        if more := self._json.text[self._told :]:
            self._told += len(more)
            self._parts.append(CallArguments(self.calls, more))

    def _behind(self) -> None:
        """Behind a call: another one, or the end of them."""
        again, end = self._format.again, self._format.end
        stop = -1 if again is None or self.calls == self._most else match(self._held, 0, again)
        if stop is None and not self._final:
            raise _Wait
        if stop is not None and stop >= 0:
            self._open()
            self._take(stop)
            self._step = self._call
            return
        stop = match(self._held, 0, end)
        if stop is None and not self._final:
            raise _Wait
        self._held = "" if stop is None else self._held[max(0, stop) :]
        self._step = self._say

    def _open(self) -> None:
        self._done, self._words, self._json = [], {}, _JsonEnd()
        self._told, self._begun, self._read = 0, False, ""

    def _take(self, length: int) -> None:
        self._read, self._held = self._read + self._held[:length], self._held[length:]

    def _give_up(self) -> None:
        """It is text after all; what has been told of a call stays told."""
        self._step = self._say
        if self._begun:
            self.calls += 1
        elif self._read:
            self._said = True
            self._parts.append(PlainText(self._read))
        self._open()

    def _out(self, length: int) -> None:
        text, self._held = self._held[:length], self._held[length:]
        # White space behind a call is the format's.
        if text and (text.strip() or not self.calls):
            self._said = True
            self._parts.append(PlainText(text))


def match(text: str, at: int, literal: str) -> int | None:
    """Where ``literal`` ends in ``text`` from ``at``; -1 if it is not there, ``None`` if it may come yet.

    White space is not compared.
    """
    for character in literal:
        if character.isspace():
            continue
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return None
        if text[at] != character:
            return -1
        at += 1
    return at


class _JsonEnd:
    """Finds the end of a JSON object that arrives in pieces."""

    def __init__(self) -> None:
        self.text = ""
        self._depth = 0
        self._in_string = self._escaped = False

    def ended(self) -> bool:
        """Whether it is there whole."""
        return bool(self.text) and self._depth == 0

    def push(self, text: str) -> int:
        """How many characters of ``text`` belong to it."""
        for at, character in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.text += text[: at + 1]
                    return at + 1
        self.text += text
        return len(text)


def _joined(parts: list[Part]) -> list[Part]:
    """Pieces that follow each other as one."""
    found: list[Part] = []
    for part in parts:
        match (found[-1] if found else None), part:
            case (PlainText(before), PlainText(text)):
                found[-1] = PlainText(before + text)
            case (CallArguments(index, before), CallArguments(same, text)) if index == same:
                found[-1] = CallArguments(index, before + text)
            case _:
                found.append(part)
    return found
