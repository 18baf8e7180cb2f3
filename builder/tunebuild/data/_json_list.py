"""Reads one JSON list of any length item by item, so that it need not fit in memory.

An item that Python's reader takes but JSON does not know (``NaN``), or that is not text, is an item with a
problem; where the list itself is broken there is no telling where the next item starts, so reading ends.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

_PIECE = 1 << 16
_SPACE = re.compile(r"[ \t\n\r]*")


class BrokenList(Exception):
    """The text is no JSON list. The arguments are the line, from 1, and why."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item: its value, its text, and what in it is no JSON, if something is."""

    value: Any
    text: str
    strange: str


class _Buffer:
    """A window on the text, and the number of the line that it starts in."""

    def __init__(self, stream: BinaryIO, longest: int) -> None:
        # Bytes that are not UTF-8 become lone surrogates, so that an item can be rejected and not the file.
        self._stream = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        self._longest = longest
        self.text = ""
        self.at = 0
        self.line = 1
        self.ended = False

    def more(self) -> bool:
        """Drop what is done with and read on, twice as far each time; ``False`` at the end."""
        self.line += self.text.count("\n", 0, self.at)
        self.text, self.at = self.text[self.at :], 0
        if len(self.text) > self._longest:
            raise BrokenList(
                self.line, f"an item is longer than {self._longest >> 20} MiB, or is never closed"
            )
        piece = self._stream.read(max(_PIECE, len(self.text)))
        self.ended = not piece
        self.text += piece
        return bool(piece)

    def next_sign(self) -> str:
        """The next character that is no white space, not yet taken; empty at the end."""
        while True:
            end = _SPACE.match(self.text, self.at)
            self.at = end.end() if end else self.at
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def broken(self, why: str, at: int | None = None) -> BrokenList:
        return BrokenList(self.line + self.text.count("\n", 0, self.at if at is None else at), why)


def read_list(stream: BinaryIO, longest: int) -> Iterator[Item]:
    """Items in order.

    Args:
        stream: UTF-8, with or without a byte order mark.
        longest: characters of the longest item.

    Raises:
        BrokenList: it is no list.
    """
    strange: list[str] = []
    decode = json.JSONDecoder(parse_constant=strange.append).raw_decode
    buffer = _Buffer(stream, longest)
    sign = buffer.next_sign()
    if sign != "[":
        raise buffer.broken("must be a list of rows" if sign in ("{", '"') else "not JSON: no list begins")
    buffer.at += 1
    if buffer.next_sign() == "]":
        buffer.at += 1
    else:
        while True:
            buffer.next_sign()
            yield _item(buffer, decode, strange)
            sign = buffer.next_sign()
            buffer.at += 1
            if sign == "]":
                break
            if sign != ",":
                buffer.at -= 1
                raise buffer.broken("not JSON: expected a comma or the end of the list")
    if buffer.next_sign():
        raise buffer.broken("not JSON: something stands behind the list")


def _item(buffer: _Buffer, decode: Any, strange: list[str]) -> Item:
    while True:
        strange.clear()
        try:
            value, end = decode(buffer.text, buffer.at)
        except json.JSONDecodeError as error:
            # It may only be cut.
            if buffer.more():
                continue
            raise buffer.broken(f"not JSON: {error.msg.removesuffix(' at')}", error.pos) from None
        except RecursionError:
            raise buffer.broken("is nested too deeply") from None
        except ValueError as error:  # a number of thousands of digits
            raise buffer.broken(f"not usable JSON: {str(error).partition(';')[0]}") from None
        # A number that is cut ("1." or "1e") reads as a shorter one.
        behind = buffer.text[end : end + 1]
        if (not behind or behind not in ",] \t\n\r") and buffer.more():
            continue
        text = buffer.text[buffer.at : end]
        buffer.at = end
        return Item(value, text, strange[0] if strange else "")
