"""Turns source rows into training examples, and accounts for every row that it does not use."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunebuild.data.formats import PLAIN, RowRejected, detect_format, to_conversation
from tunebuild.data.likeness import question_digest, row_digest
from tunebuild.data.shorten import shorten
from tunebuild.data.sources import SourceRow, read_rows
from tunebuild.errors import fail
from tunebuild.prompt import Example, Message, PromptRefused, Renderer
from tunebuild.spec.data import DataSpec

#: Reasons that the spec asked for. Such rows are listed, and are no sign that the data is bad.
ASKED_FOR = frozenset(("filtered", "duplicate", "leaked", "not-sampled"))


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


def prepare(sources: Sequence[RowSource], renderer: Renderer, data: DataSpec, max_length: int) -> Prepared:
    """Read, convert and render all rows.

    Args:
        sources: files in order.
        renderer: the prompt contract.
        data: the spec's policies.
        max_length: longest example in tokens.

    Raises:
        TunebuildError: a file cannot be read, its format cannot be told, a column that is mapped is in no
            row, or a row is too long under ``on_long: error``.
    """
    result = Prepared()
    seen: dict[bytes, Kept] = {}
    for source in sources:
        for outcome in _rows(source, renderer, data.on_long, max_length, result.formats):
            if isinstance(outcome, Reject):
                if outcome.code == "too-long" and data.on_long == "error":
                    raise fail(
                        "too-long",
                        str(outcome),
                        "raise tuning.max_length, or say data.on_long: drop or truncate_prompt",
                        path="tuning.max_length",
                    )
                result.rejects.append(outcome)
                continue
            if data.deduplicate != "off":
                first = seen.setdefault(
                    row_digest(outcome.messages, folded=data.deduplicate == "folded"), outcome
                )
                if first is not outcome:
                    result.rejects.append(_reject(outcome, "duplicate", f"says the same as {first}"))
                    continue
            result.kept.append(outcome)
    return result


def check_rejects(prepared: Prepared, max_rejected: float) -> None:
    """Stop the build where too many rows were rejected, or none is left.

    Raises:
        TunebuildError: with the first rejects, one a line.
    """
    bad = [reject for reject in prepared.rejects if reject.code not in ASKED_FOR]
    total = len(prepared.kept) + len(bad)
    if not total:
        message = "the filters leave no rows" if prepared.rejects else "there are no training rows"
        raise fail("no-rows", message, path="data.train")
    share = len(bad) / total
    if prepared.kept and share <= max_rejected:
        return
    first = "".join(f"\n  {reject}" for reject in bad[:10])
    more = f"\n  and {len(bad) - 10} more" if len(bad) > 10 else ""
    raise fail(
        "rejected",
        f"{len(bad)} of {total} rows cannot be used ({share:.1%}, "
        f"at most {max_rejected:.1%} may be rejected){first}{more}",
        "mend the rows, or raise data.max_rejected",
        path="data.max_rejected",
    )


def split(kept: list[Kept], fraction: float, seed: int) -> tuple[list[Kept], list[Kept]]:
    """Hold out a share of the rows; at least one where the share is not 0. Order is kept.

    Rows that ask the same go the same way, so there may be a few more than asked for.
    """
    count = max(1, round(len(kept) * fraction)) if fraction else 0
    questions = [question_digest(row.messages) for row in kept]
    drawn = random.Random(seed).sample(range(len(kept)), count)  # noqa: S311 - not for secrets
    rows = {(kept[index].file, kept[index].line) for index in drawn}
    # The samples of one row stay together, too.
    asked = {q for q, row in zip(questions, kept, strict=True) if (row.file, row.line) in rows}
    held = [q in asked or (row.file, row.line) in rows for q, row in zip(questions, kept, strict=True)]
    return (
        [row for row, out in zip(kept, held, strict=True) if not out],
        [row for row, out in zip(kept, held, strict=True) if out],
    )


def part_leaks(train: list[Kept], held_out: Sequence[Kept], on_leak: str) -> tuple[list[Kept], list[Reject]]:
    """Take what is held out away from training.

    Returns the rows to train on and the others.

    Raises:
        TunebuildError: under ``on_leak: error``, with the first pairs of rows, one a line.
    """
    asked = {question_digest(row.messages): row for row in held_out}
    leaks = [(row, asked[key]) for row in train if (key := question_digest(row.messages)) in asked]
    if leaks and on_leak == "error":
        pairs = "".join(f"\n  {row} asks what {held} asks" for row, held in leaks[:10])
        more = f"\n  and {len(leaks) - 10} more" if len(leaks) > 10 else ""
        raise fail(
            "leak",
            f"{len(leaks)} training rows are also held out, so what is measured would be what was learnt"
            f"{pairs}{more}",
            "take them out of one of the files, or say data.eval.on_leak: drop",
            path="data.eval.files",
        )
    leaked = {id(row) for row, _ in leaks}
    return (
        [row for row in train if id(row) not in leaked],
        [_reject(row, "leaked", f"asks what {held} asks, which is held out") for row, held in leaks],
    )


def weigh(rows: Sequence[Kept], seed: int) -> tuple[list[Kept], list[Reject]]:
    """Repeat rows by their weight; what is left of a weight is a chance, drawn with the seed."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    taken: list[Kept] = []
    left: list[Reject] = []
    for row in rows:
        whole = int(row.weight)
        times = whole + (chance.random() < row.weight - whole if row.weight > whole else 0)
        taken += [row] * times
        if not times:
            left.append(_reject(row, "not-sampled", f"was not drawn at weight {row.weight:g}"))
    return taken, left


def count_reasons(rejects: Sequence[Reject]) -> dict[str, int]:
    """Rejected rows per reason code."""
    return dict(sorted(Counter(reject.code for reject in rejects).items()))


def _rows(
    source: RowSource, renderer: Renderer, on_long: str, max_length: int, formats: dict[str, str]
) -> Iterator[Kept | Reject]:
    format_name = source.format
    missing = set(source.columns.values())
    for row in read_rows(source.path, source.shown):
        if row.problem:
            yield _bad(source, row, "unreadable", row.problem)
            continue
        if isinstance(row.value, Mapping):
            missing -= {name for name in missing if row.value.get(name) not in (None, "")}
            if other := _outside(row.value, source.where):
                yield _bad(source, row, "filtered", other)
                continue
        if format_name == "auto":
            format_name = _detect(source, row)
        formats[source.shown] = format_name
        try:
            samples = _samples(to_conversation(row.value, format_name, source.columns), renderer)
            for messages, example in samples:
                yield _fitted(source, row, messages, example, renderer, on_long, max_length)
        except RowRejected as error:
            yield _bad(source, row, "bad-row", str(error))
        except PromptRefused as error:
            yield _bad(source, row, error.diagnostics[0].code, error.diagnostics[0].message)
    if missing:
        message = f"{source.shown}: no row has anything in column '{min(missing)}'"
        raise fail("no-column", message, "mend data.train[].columns, or the file", path="data.train")


def _samples(messages: list[Message], renderer: Renderer) -> list[tuple[list[Message], Example]]:
    if messages[0]["role"] == PLAIN:
        return [(messages, renderer.plain_example(messages[0]["content"]))]
    return renderer.examples(messages)


def _fitted(
    source: RowSource,
    row: SourceRow,
    messages: list[Message],
    example: Example,
    renderer: Renderer,
    on_long: str,
    max_length: int,
) -> Kept | Reject:
    shortened = len(example.ids) > max_length and on_long == "truncate_prompt"
    if shortened and (fitting := shorten(messages, renderer, max_length)):
        messages, example = fitting
    if len(example.ids) > max_length:
        what = "without what the user said still " if shortened else ""
        reason = f"{what}has {len(example.ids)} tokens, at most {max_length} are allowed"
        return _bad(source, row, "too-long", reason)
    return Kept(messages, example, source.shown, row.line, source.weight, shortened)


def _detect(source: RowSource, row: SourceRow) -> str:
    found = detect_format(row.value, source.columns)
    if found is None:
        columns = ", ".join(map(str, row.value)) if isinstance(row.value, Mapping) else "none"
        raise fail(
            "no-format",
            f"{source.shown}:{row.line}: these columns tell no format: {columns}",
            "name the format, and map its columns: {format: qa, columns: {question: ..., answer: ...}}",
            path="data.train",
        )
    return found


def _outside(row: Mapping[str, Any], where: Mapping[str, Any]) -> str:
    for column, wanted in where.items():
        if row.get(column) not in (wanted if isinstance(wanted, tuple | list) else (wanted,)):
            return f"column '{column}' is {row.get(column)!r}"
    return ""


def _bad(source: RowSource, row: SourceRow, code: str, reason: str) -> Reject:
    excerpt = "" if row.value is None else str(row.value)[:200]
    return Reject(source.shown, row.line, code, reason, excerpt)


def _reject(row: Kept, code: str, reason: str) -> Reject:
    return Reject(row.file, row.line, code, reason, str(row.messages)[:200])
