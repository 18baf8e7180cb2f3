"""Debian's order of version numbers. Source: Debian Policy, section 5.6.12."""

from __future__ import annotations

import re
from functools import total_ordering

_PIECE = re.compile(r"(\D*)(\d*)")


@total_ordering
class DebianVersion:
    """``[epoch:]upstream[-revision]``, comparable."""

    def __init__(self, text: str) -> None:
        self.text = text
        epoch, colon, rest = text.partition(":")
        upstream, _, revision = (rest if colon else text).rpartition("-")
        if not upstream:
            upstream, revision = revision, ""
        self._key = (int(epoch) if colon else 0, _key(upstream), _key(revision))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DebianVersion) and self._key == other._key

    def __lt__(self, other: DebianVersion) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _key(part: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    pieces = [(_letters(text), int(digits or 0)) for text, digits in _PIECE.findall(part)]
    # The end sorts before everything but a tilde: an empty piece stands for it. A zero that follows nothing
    # is such a piece too, which makes "1-0" equal to "1".
    end = (_letters(""), 0)
    while pieces and pieces[-1] == end:
        pieces.pop()
    return (*pieces, end)


def _letters(text: str) -> tuple[int, ...]:
    # Tilde before the end, the end before letters, letters before all other characters.
    order = [-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in text]
    return (*order, 0)
