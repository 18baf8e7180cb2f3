"""The one error type that users see, and the one place where it is turned into text."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file, counted from 1 as editors do; line 0 is the whole of it, e.g. of an option."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that is wrong, where it stands, and what to do about it.

    Attributes:
        code: stable identifier for machines and for searching the docs, e.g. ``unknown-key``.
        message: what is wrong, in one sentence without a full stop.
        hint: what to do next; empty if the message says it all.
        path: dotted path in the spec, e.g. ``tuning.lora.r``; empty if it is not about one field.
        position: file, line and column; ``None`` if no file is involved.
    """

    code: str
    message: str
    hint: str = ""
    path: str = ""
    position: Position | None = None

    def __str__(self) -> str:
        head = " ".join(part for part in (str(self.position or ""), self.path) if part)
        return f"{head}: {self.text}" if head else self.text

    @property
    def text(self) -> str:
        """Message and hint; behind a list the hint is a line of its own."""
        between = "\n" if "\n" in self.message else "; "
        return f"{self.message}{between}{self.hint}" if self.hint else self.message

    def at(self, position: Position | None, path: str = "") -> Diagnostic:
        """The same diagnostic, placed."""
        return replace(self, position=position, path=path or self.path)


@dataclass(eq=False)
class TunebuildError(Exception):
    """Raised for everything that a user can fix. Carries one diagnostic or several, never a traceback."""

    diagnostics: tuple[Diagnostic, ...] = field(default_factory=tuple)
    exit_code: int = 1

    def __str__(self) -> str:
        return "\n".join(str(d) for d in self.diagnostics)


def fail(code: str, message: str, hint: str = "", *, path: str = "", exit_code: int = 1) -> TunebuildError:
    """Build a :class:`TunebuildError` of one diagnostic. Use as ``raise fail(...)``."""
    return TunebuildError((Diagnostic(code, message, hint, path),), exit_code)
