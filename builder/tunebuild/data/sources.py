"""Reads rows out of files, each with the line it starts in."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebuild.errors import Diagnostic, Position, TunebuildError


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a file.

    Attributes:
        line: where it starts, from 1; for JSON arrays the number of the item.
        value: the parsed row, or ``None`` if it could not be parsed.
        problem: why it could not be parsed.
    """

    line: int
    value: Any
    problem: str = ""


def read_rows(path: Path, shown: str) -> Iterator[SourceRow]:
    """Rows of a ``.jsonl``, ``.json`` or ``.csv`` file in order.

    Args:
        path: the file.
        shown: how messages name it.

    Raises:
        TunebuildError: the file as a whole is not what its name says.
    """
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise _bad(shown, 1, f"cannot read '{path.suffix}' files", f"use one of {', '.join(readers)}")
    return reader(path, shown)


def _jsonl(path: Path, shown: str) -> Iterator[SourceRow]:
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if not line.strip():
                continue
            try:
                yield SourceRow(number, json.loads(line))
            except UnicodeDecodeError:
                yield SourceRow(number, None, "is not UTF-8")
            except json.JSONDecodeError as error:
                yield SourceRow(number, None, f"is not JSON: {error.msg} at column {error.colno}")


def _json(path: Path, shown: str) -> Iterator[SourceRow]:
    try:
        value = json.loads(_decode(path, shown))
    except json.JSONDecodeError as error:
        raise _bad(shown, error.lineno, f"not JSON: {error.msg}") from None
    if not isinstance(value, list):
        raise _bad(shown, 1, "must be a list of rows", "for one row a line use .jsonl")
    for number, row in enumerate(value, 1):
        yield SourceRow(number, row)


def _csv(path: Path, shown: str) -> Iterator[SourceRow]:
    reader = csv.reader(_decode(path, shown).splitlines(keepends=True), strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise _bad(shown, 1, "the file is empty", "its first line must name the columns")
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                yield SourceRow(line, dict(zip(header, cells, strict=True)))
            elif cells:
                problem = f"has {len(cells)} cells, the header has {len(header)}"
                yield SourceRow(line, None, problem)
            line = reader.line_num + 1
    except csv.Error as error:
        raise _bad(shown, reader.line_num, f"not CSV: {error}") from None


def _decode(path: Path, shown: str) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(shown, data[: error.start].count(b"\n") + 1, "is not UTF-8") from None


def _bad(shown: str, line: int, message: str, hint: str = "") -> TunebuildError:
    return TunebuildError((Diagnostic("data-file", message, hint, position=Position(shown, line, 1)),))
