"""Debian's order of version numbers. Source: Debian Policy, section 5.6.12."""

from __future__ import annotations

import re
from functools import total_ordering
from itertools import zip_longest

_PIECE = re.compile(r"(\D*)(\d*)")

#: Text, then a number: what a part of a version is cut into.
_Piece = tuple[tuple[int, ...], int]

# The end of a part: it sorts before everything but a tilde, and goes on for ever, so that "1-0" equals "1".
_END: _Piece = ((0,), 0)


@total_ordering
class DebianVersion:
    """``[epoch:]upstream[-revision]``, comparable."""

    def __init__(self, text: str) -> None:
        self.text = text
        epoch, colon, rest = text.partition(":")
        upstream, _, revision = (rest if colon else text).rpartition("-")
        if not upstream:
            upstream, revision = revision, ""
        self._epoch = int(epoch) if colon else 0
        self._parts = (_pieces(upstream), _pieces(revision))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DebianVersion) and self._key == other._key

    def __lt__(self, other: DebianVersion) -> bool:
        if self._epoch != other._epoch:
            return self._epoch < other._epoch
        for mine, its in zip(self._parts, other._parts, strict=True):
            for a, b in zip_longest(mine, its, fillvalue=_END):
                if a != b:
                    return a < b
        return False

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[int, tuple[tuple[_Piece, ...], ...]]:
        return self._epoch, self._parts


def _pieces(part: str) -> tuple[_Piece, ...]:
    pieces = [(_order(text), int(digits or 0)) for text, digits in _PIECE.findall(part)]
    while pieces and pieces[-1] == _END:
        pieces.pop()
    return tuple(pieces)


def _order(text: str) -> tuple[int, ...]:
    # Tilde before the end, the end before letters, letters before all other characters.
    return (*(-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in text), 0)
