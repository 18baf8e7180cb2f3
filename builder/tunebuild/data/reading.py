"""Reads rows out of files, each with the line it starts in. What cannot be read is a row with a problem."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import zstandard

from tunebuild.data._json_list import BrokenList, read_list
from tunebuild.errors import Diagnostic, Position, TunebuildError
from tunebuild.grammar import counted
from tunebuild.spec.endings import ENDINGS_SHOWN

#: A longer row is rejected without being held in memory: no context is that long.
MAX_ROW_BYTES = 16 << 20

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_PARQUET_ROWS = 1000
# Bytes of a row that cannot be read: more than an excerpt is made of.
_BEGINNING = 1 << 19


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a file.

    Attributes:
        line: where it starts, from 1; for JSON arrays and Parquet the number of the item.
        value: the parsed row, or ``None`` if it could not be parsed.
        problem: why it could not be parsed.
        text: what stands there instead, or its beginning.
    """

    line: int
    value: Any
    problem: str = ""
    text: str = ""


def read_rows(path: Path, shown: str) -> Iterator[SourceRow]:
    """Rows of a file in order, one at a time.

    Args:
        path: ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet``; the first four also with ``.gz`` or
            ``.zst`` behind.
        shown: how messages name it.

    Raises:
        TunebuildError: the file as a whole is not what its name says.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packing = suffixes.pop() if suffixes and suffixes[-1] in _UNPACK else ""
    kind = suffixes[-1] if suffixes else ""
    if kind == ".parquet" and not packing:
        yield from _parquet(path, shown)
        return
    reader = _READERS.get(kind)
    if reader is None:
        raise _bad(shown, 1, f"cannot read '{kind + packing}' files", f"use one of {ENDINGS_SHOWN}")
    try:
        with _UNPACK[packing](path) as stream:
            yield from reader(stream, shown)
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise _bad(shown, 1, f"is damaged: {error}") from None


def count_rows(path: Path, shown: str, most: int) -> int:
    """How many rows :func:`read_rows` would give; ``most`` where there are more.

    Raises:
        TunebuildError: as there.
    """
    if path.suffix.lower() == ".parquet":
        with _open_parquet(path, shown) as file:
            return min(most, file.metadata.num_rows)
    return sum(1 for _ in islice(read_rows(path, shown), most))


def _jsonl(stream: BinaryIO, shown: str) -> Iterator[SourceRow]:
    first = True
    for number, (raw, whole) in enumerate(_lines(stream), 1):
        # Without the end of the line, behind which an error would be at column 1.
        line = (raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw).rstrip()
        if not line:
            continue
        if first and _LIST.match(line):
            hint = "call it .json, or write a row a line"
            raise _bad(shown, number, "is one list of rows, and .jsonl has a row a line", hint)
        first = False
        value, problem = None, ""
        try:
            if whole:
                value = _DECODE(line.decode("utf-8"))
                problem = _text_problem(value, line)
            else:
                problem = f"is longer than {MAX_ROW_BYTES >> 20} MiB"
        except UnicodeDecodeError:
            problem = "is not UTF-8"
        except json.JSONDecodeError as error:
            problem = f"is not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
        except RecursionError:
            problem = "is nested too deeply"
        except _NotJson as error:
            problem = str(error)
        except ValueError as error:  # a number of thousands of digits
            problem = f"is not usable JSON: {str(error).partition(';')[0]}"
        yield _unreadable(number, problem, line) if problem else SourceRow(number, value)


def _unreadable(line: int, problem: str, raw: bytes | str) -> SourceRow:
    """A row with a problem. In a ``str``, bytes that are not UTF-8 are lone surrogates."""
    data = raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogateescape")
    return SourceRow(line, None, problem, data[:_BEGINNING].decode("utf-8", "replace"))


# How a list of rows begins; a stray list of something else is a bad row.
_LIST = re.compile(rb"\s*\[\s*(\{|$)")


class _NotJson(ValueError):
    """What Python's reader takes for a number and JSON does not know."""


def _refuse(name: str) -> NoReturn:
    raise _NotJson(f"holds {name}, which is not JSON")


_DECODE = json.JSONDecoder(parse_constant=_refuse).decode


def _json(stream: BinaryIO, shown: str) -> Iterator[SourceRow]:
    try:
        for number, item in enumerate(read_list(stream, MAX_ROW_BYTES), 1):
            if _surrogate(item.text):
                problem = "is not UTF-8"
            elif item.strange:
                problem = f"holds {item.strange}, which is not JSON"
            else:
                problem = _text_problem(item.value, item.text.encode())
            yield _unreadable(number, problem, item.text) if problem else SourceRow(number, item.value)
    except BrokenList as error:
        line, why = error.args
        raise _bad(shown, line, why, "for one row a line use .jsonl") from None


def _csv(stream: BinaryIO, shown: str, delimiter: str = ",") -> Iterator[SourceRow]:
    # Bytes that are not UTF-8 become lone surrogates, so that a row can be rejected and not the file.
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    csv.field_size_limit(MAX_ROW_BYTES)
    begun: list[str] = []  # the first line of a row

    def lines() -> Iterator[str]:
        for line in text:
            if not begun:
                begun.append(line)
            yield line

    reader = csv.reader(lines(), strict=True, delimiter=delimiter)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise _bad(shown, 1, f"not CSV: {error}") from None
    if not header:
        raise _bad(shown, 1, "the file is empty", "its first line must name the columns")
    if _surrogate("".join(header)):
        raise _bad(shown, 1, "is not UTF-8", "save it as UTF-8")
    if len(header) == 1 and (others := [d for d in _DELIMITERS if d != delimiter and d in header[0]]):
        wanted, other = _DELIMITERS[delimiter], _DELIMITERS[others[0]]
        hint = {"\t": "call it .tsv", ",": "call it .csv"}.get(others[0], f"save it with {wanted}")
        message = f"the header is one cell, {header[0]!r}: cells are parted by {wanted} here, not by {other}"
        raise _bad(shown, 1, message, hint)
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise _bad(shown, 1, f"two columns are called '{twice}'")
    while True:
        line = reader.line_num + 1
        begun.clear()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield _unreadable(line, f"is not CSV: {error}", "".join(begun))
            continue
        if cells is None:
            return
        if len(cells) != len(header):
            if cells:
                problem = f"has {counted(len(cells), 'cell')}, the header has {len(header)}"
                yield _unreadable(line, problem, "".join(begun))
        elif _surrogate("".join(cells)):
            yield _unreadable(line, "is not UTF-8", "".join(begun))
        else:
            yield SourceRow(line, dict(zip(header, cells, strict=True)))


def _tsv(stream: BinaryIO, shown: str) -> Iterator[SourceRow]:
    return _csv(stream, shown, "\t")


def _parquet(path: Path, shown: str) -> Iterator[SourceRow]:
    with _open_parquet(path, shown) as file:
        number = 0
        for batch in file.iter_batches(_PARQUET_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield SourceRow(number, row)


@contextmanager
def _open_parquet(path: Path, shown: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise _bad(shown, 1, f"not Parquet: {str(error).splitlines()[0]}") from None


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Lines, and whether each is whole; of one that is too long the rest is skipped in pieces."""
    while raw := stream.readline(MAX_ROW_BYTES):
        whole = len(raw) < MAX_ROW_BYTES or raw.endswith(b"\n")
        yield raw, whole
        while not whole:
            raw = stream.readline(MAX_ROW_BYTES)
            whole = not raw or raw.endswith(b"\n")


def _text_problem(value: Any, source: bytes) -> str:
    """JSON can spell half a character, which no tokenizer can read."""
    escaped = b"\\ud" in source or b"\\uD" in source  # only then is it worth a look
    if escaped and _surrogate(json.dumps(value, ensure_ascii=False)):
        return "holds half of a surrogate pair, which is no character"
    return ""


def _surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _open_zst(path: Path) -> BinaryIO:
    return io.BufferedReader(zstandard.open(path, "rb"))


def _bad(shown: str, line: int, message: str, hint: str = "") -> TunebuildError:
    return TunebuildError((Diagnostic("data-file", message, hint, position=Position(shown, line, 1)),))


_UNPACK: dict[str, Callable[[Path], Any]] = {
    "": lambda path: path.open("rb"),
    ".gz": lambda path: gzip.GzipFile(path, "rb"),
    ".zst": _open_zst,
}
_READERS: dict[str, Callable[[BinaryIO, str], Iterator[SourceRow]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
}
