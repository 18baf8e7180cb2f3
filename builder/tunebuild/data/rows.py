"""Where rows come from, and those that are not used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Characters of an excerpt.
EXCERPT = 200


@dataclass(frozen=True, slots=True)
class RowSource:
    """A file of rows: where it is, how messages name it, its format and column names, and what to take.

    ``most`` is how many rows are read, from the first one on; all of them where it is ``None``.
    """

    path: Path
    shown: str
    format: str
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that is not used.

    Attributes:
        file, line: where it stands.
        code: the reason for machines, e.g. ``too-long``.
        reason: the reason for people.
        excerpt: the start of the row, masked.
    """

    file: str
    line: int
    code: str
    reason: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a row that a model should not repeat.

    Attributes:
        file, line: where the row stands.
        found: ``secret`` or ``personal``.
        kind: what it is, in words.
        excerpt: its beginning and length, the rest masked.
        outcome: what became of the row: ``reported``, ``rejected`` or ``refused``, with the whole build.
    """

    file: str
    line: int
    found: str
    kind: str
    excerpt: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.excerpt}"
