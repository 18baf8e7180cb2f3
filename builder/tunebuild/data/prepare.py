"""Turns source rows into training examples, and accounts for every row that it does not use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunebuild.data.formats import PLAIN, RowRejected, detect_format, to_conversation
from tunebuild.data.likeness import row_digest
from tunebuild.data.rows import Kept, Prepared, Reject, RowSource
from tunebuild.data.shorten import shorten
from tunebuild.data.sources import SourceRow, read_rows
from tunebuild.errors import fail
from tunebuild.prompt import Example, Message, PromptRefused, Renderer
from tunebuild.spec.data import DataSpec


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
                    result.rejects.append(outcome.reject("duplicate", f"says the same as {first}"))
                    continue
            result.kept.append(outcome)
    return result


def _rows(
    source: RowSource, renderer: Renderer, on_long: str, max_length: int, formats: dict[str, str]
) -> Iterator[Kept | Reject]:
    format_name = source.format
    missing, readable = set(source.columns.values()), False
    for row in read_rows(source.path, source.shown):
        if row.problem:
            yield _bad(source, row, "unreadable", row.problem)
            continue
        readable = True
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
    if missing and readable:
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
