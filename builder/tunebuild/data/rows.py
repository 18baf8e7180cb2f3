"""Rows on their way to examples: where they come from, and whether they are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunebuild.prompt import Example, Message


@dataclass(frozen=True, slots=True)
class RowSource:
    """A file of rows: where it is, how messages name it, its format and column names, and what to take."""

    path: Path
    shown: str
    format: str
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that is used.

    Attributes:
        messages: the conversation, shortened if it was too long and that was asked for.
        example: its tokens.
        file, line: where it stands.
        weight: how often to train on it.
        shortened: whether the beginning of the prompt was cut.
    """

    messages: list[Message]
    example: Example
    file: str = ""
    line: int = 0
    weight: float = 1.0
    shortened: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def reject(self, code: str, reason: str) -> Reject:
        """The same row, not used after all."""
        return Reject(self.file, self.line, code, reason, str(self.messages)[:200])


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that is not used.

    Attributes:
        file, line: where it stands.
        code: the reason for machines, e.g. ``too-long``.
        reason: the reason for people.
        excerpt: the start of the row.
    """

    file: str
    line: int
    code: str
    reason: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(slots=True)
class Prepared:
    """Rows kept and rejected, in order, and the format of each file by its name."""

    kept: list[Kept] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    formats: dict[str, str] = field(default_factory=dict)
