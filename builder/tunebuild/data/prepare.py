"""Turns source rows into training examples, and accounts for every row that it does not use."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunebuild.data.formats import RowRejected, to_conversation
from tunebuild.data.sources import read_rows
from tunebuild.errors import fail
from tunebuild.prompt import Example, Message, PromptRefused, Renderer


@dataclass(frozen=True, slots=True)
class RowSource:
    """A file of rows: where it is, how messages name it, its format and column names."""

    path: Path
    shown: str
    format: str
    columns: dict[str, str]


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that is used."""

    messages: list[Message]
    example: Example


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
    """Rows kept and rejected, in order."""

    kept: list[Kept] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


def prepare(sources: Sequence[RowSource], renderer: Renderer, *, max_length: int, on_long: str) -> Prepared:
    """Read, convert and render all rows.

    Args:
        sources: files in order.
        renderer: the prompt contract.
        max_length: longest example in tokens.
        on_long: ``error`` stops at the first longer row, ``drop`` rejects it.

    Raises:
        TunebuildError: a file cannot be read, or a row is too long under ``error``.
    """
    result = Prepared()
    for source in sources:
        for outcome in _rows(source, renderer, max_length):
            if isinstance(outcome, Kept):
                result.kept.append(outcome)
                continue
            if outcome.code == "too-long" and on_long == "error":
                raise fail(
                    "too-long",
                    str(outcome),
                    "raise tuning.max_length, or say data.on_long: drop",
                    path="tuning.max_length",
                )
            result.rejects.append(outcome)
    return result


def check_rejects(prepared: Prepared, max_rejected: float) -> None:
    """Stop the build where too many rows were rejected, or none is left.

    Raises:
        TunebuildError: with the first rejects, one a line.
    """
    total = len(prepared.kept) + len(prepared.rejects)
    if not total:
        raise fail("no-rows", "there are no training rows", path="data.train")
    share = len(prepared.rejects) / total
    if prepared.kept and share <= max_rejected:
        return
    first = "".join(f"\n  {reject}" for reject in prepared.rejects[:10])
    more = f"\n  and {len(prepared.rejects) - 10} more" if len(prepared.rejects) > 10 else ""
    raise fail(
        "rejected",
        f"{len(prepared.rejects)} of {total} rows cannot be used ({share:.1%}, "
        f"at most {max_rejected:.1%} may be rejected){first}{more}",
        "mend the rows, or raise data.max_rejected",
        path="data.max_rejected",
    )


def split(kept: list[Kept], fraction: float, seed: int) -> tuple[list[Kept], list[Kept]]:
    """Hold out a share of the rows; at least one where the share is not 0. Order is kept."""
    count = max(1, round(len(kept) * fraction)) if fraction else 0
    held = set(random.Random(seed).sample(range(len(kept)), count))  # noqa: S311 - not for secrets
    train = [row for i, row in enumerate(kept) if i not in held]
    return train, [row for i, row in enumerate(kept) if i in held]


def count_reasons(rejects: Sequence[Reject]) -> dict[str, int]:
    """Rejected rows per reason code."""
    return dict(sorted(Counter(reject.code for reject in rejects).items()))


def _rows(source: RowSource, renderer: Renderer, max_length: int) -> Iterator[Kept | Reject]:
    for row in read_rows(source.path, source.shown):

        def reject(code: str, reason: str, line: int = row.line, value: object = row.value) -> Reject:
            return Reject(source.shown, line, code, reason, "" if value is None else str(value)[:200])

        if row.problem:
            yield reject("unreadable", row.problem)
            continue
        try:
            messages = to_conversation(row.value, source.format, source.columns)
            example = renderer.example(messages)
        except RowRejected as error:
            yield reject("bad-row", str(error))
            continue
        except PromptRefused as error:
            yield reject(error.diagnostics[0].code, error.diagnostics[0].message)
            continue
        if len(example.ids) > max_length:
            yield reject("too-long", f"has {len(example.ids)} tokens, at most {max_length} are allowed")
        else:
            yield Kept(messages, example)
