"""Turns source rows into samples on disk, and accounts for every row that gives none."""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa

from tunebuild.data import unused
from tunebuild.data.columns import Columns
from tunebuild.data.findings import Findings
from tunebuild.data.formats import detect_format
from tunebuild.data.headings import Headings
from tunebuild.data.reading import SourceRow, read_rows
from tunebuild.data.rejects import Rejects
from tunebuild.data.rows import Reject, RowSource
from tunebuild.data.samples import SCHEMA
from tunebuild.data.tokenize import Chunk, Tokenizer, reject
from tunebuild.data.unused import Account
from tunebuild.data.where import outside
from tunebuild.data.workers import tokenise_in_order
from tunebuild.errors import TunebuildError, fail
from tunebuild.grammar import counted, listed
from tunebuild.prompt import Renderer
from tunebuild.spec.data import DataSpec
from tunebuild.store import Progress

_CHUNK_ROWS = 500
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Prepared:
    """Samples that can be used.

    Attributes:
        path: an Arrow stream of them, of :data:`tunebuild.data.samples.SCHEMA`.
        columns: what decides over each, in the same order.
        formats: each file's format by its name.
        unused: of each file, by its number, what no prompt shows of its rows.
    """

    path: Path
    columns: Columns
    formats: Mapping[str, str]
    unused: Mapping[int, Account]


def prepare(
    sources: Sequence[RowSource],
    renderer: Renderer,
    data: DataSpec,
    max_length: int,
    path: Path,
    rejects: Rejects,
    findings: Findings,
    progress: Progress,
) -> Prepared:
    """Read, convert and render all rows, on all cores, holding only a few chunks at a time.

    Args:
        sources: files in order.
        renderer: the prompt contract.
        data: the spec's policies.
        max_length: longest sample in tokens.
        path: where to write the samples.
        rejects: takes the rows that are not used.
        findings: takes what is found in rows.
        progress: is told how far it is, in files.

    Raises:
        TunebuildError: a file cannot be read, its format cannot be told, a column that is asked for is in
            no row, a row is too long under ``on_long: error``, or something was found that the spec refuses.
    """
    tokenizer = Tokenizer(
        renderer,
        max_length,
        shorten=data.on_long == "truncate_prompt",
        folded=data.deduplicate == "folded" or data.near is not None,
        near=data.near is not None,
        privacy=data.privacy,
    )
    reader = _Reader(sources)
    columns: list[Columns] = []
    long: list[Reject] = []
    accounts: defaultdict[int, Account] = defaultdict(Counter)
    rows = longest = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for tokenized in tokenise_in_order(reader.chunks(), tokenizer, len(os.sched_getaffinity(0))):
            long += [r for r in tokenized.rejects if r.code == "too-long"][: _SHOWN - len(long)]
            longest = max(longest, tokenized.longest)
            unused.add(accounts[tokenized.source], tokenized.unused)
            rejects.add(tokenized.rejects)
            findings.add(tokenized.findings)
            if tokenized.batch.num_rows:
                writer.write_batch(tokenized.batch)
                columns.append(Columns.of(tokenized.batch))
            rows += tokenized.batch.num_rows
            progress.step(reader.file, len(sources), counted(rows, "row"))
    if long and data.on_long == "error":
        raise _refuse_long(long, rejects.counts["too-long"], reader.rows, longest)
    called = f"template '{renderer.template.name}'"
    for number, account in accounts.items():
        for what, count in sorted(account.items()):
            progress.say(f"{sources[number].shown}: {what.words(count, called)}")
    findings.check()
    joined = Columns.joined(columns, [s.shown for s in sources])
    return Prepared(path, joined, reader.formats, {n: a for n, a in accounts.items() if a})


@dataclass(slots=True)
class _Reader:
    """Reads files in order and knows which one it is at."""

    sources: Sequence[RowSource]
    formats: dict[str, str] = field(default_factory=dict)
    file: int = 0
    rows: int = 0

    def chunks(self) -> Iterator[Chunk]:
        for number, source in enumerate(self.sources):
            self.file = number
            yield from self._chunks(source)

    def _chunks(self, source: RowSource) -> Iterator[Chunk]:
        """Rows in chunks, with those that cannot be read or are not wanted sorted out."""
        headings = Headings(source)
        chunk = _empty_chunk(self.file, source, source.format)
        read = 0
        for row in islice(read_rows(source.path, source.shown), _most(source)):
            read += 1
            self.rows += 1
            if len(chunk.rows) + len(chunk.rejects) == _CHUNK_ROWS:
                yield chunk
                chunk = _empty_chunk(self.file, source, chunk.format)
            if row.problem:
                chunk.rejects.append(reject(source.shown, row, "unreadable", row.problem))
                continue
            if isinstance(row.value, Mapping):
                headings.see(row.value)
                if other := outside(row.value, source.where):
                    chunk.rejects.append(reject(source.shown, row, "filtered", other))
                    continue
            if chunk.format == "auto":
                chunk = replace(chunk, format=_detect(source, row))
            self.formats[source.shown] = chunk.format
            chunk.rows.append(row)
        yield chunk
        headings.check(whole=read != source.most)


def _empty_chunk(file: int, source: RowSource, format_name: str) -> Chunk:
    return Chunk(file, source.shown, format_name, source.columns, chosen_by=frozenset(source.where))


def _refuse_long(first: Sequence[Reject], count: int, rows: int, longest: int) -> TunebuildError:
    return fail(
        "too-long",
        f"too low for {count:,} of {counted(rows, 'row')}, the longest of which has {longest} tokens"
        f"{listed(first, count)}",
        "raise it, or say data.on_long: drop or truncate_prompt",
        path="tuning.max_length",
    )


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


def _most(source: RowSource) -> int | None:
    """How many rows are read; no iterator counts further than a machine word does."""
    return None if source.most is None else min(source.most, sys.maxsize)
