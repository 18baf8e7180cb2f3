"""Prepared rows read back, for tests that look at single samples."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunebuild.data.findings import Findings
from tunebuild.data.prepare import Prepared, prepare
from tunebuild.data.rejects import Rejects
from tunebuild.data.rows import Reject, RowSource
from tunebuild.prompt import Example, Renderer
from tunebuild.spec.data import DataSpec
from tunebuild.store import Silent


@dataclass(frozen=True)
class Kept:
    """A sample: its conversation and tokens, and the line of its row."""

    messages: list[dict[str, Any]]
    example: Example
    line: int
    shortened: bool


@dataclass(frozen=True)
class ReadBack:
    """What :func:`prepare` wrote, in memory."""

    kept: list[Kept]
    rejects: list[Reject]
    account: Rejects
    prepared: Prepared
    said: list[str]


class _Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Keep it."""
        self.lines.append(text)


def prepare_rows(
    directory: Path, sources: Sequence[RowSource], renderer: Renderer, data: DataSpec, max_length: int = 200
) -> ReadBack:
    """Prepare and read back."""
    text = io.StringIO()
    account = Rejects(text)
    path = directory / "samples.arrow"
    said, findings = _Said(), Findings(io.StringIO())
    prepared = prepare(sources, renderer, data, max_length, path, account, findings, said)
    with pa.OSFile(str(path)) as file:
        rows = pa.ipc.open_stream(file).read_all().to_pylist()
    kept = [
        Kept(
            json.loads(row["messages"]),
            Example(row["input_ids"], tuple(zip(row["spans"][::2], row["spans"][1::2], strict=True))),
            row["line"],
            row["shortened"],
        )
        for row in rows
    ]
    rejects = [Reject(**json.loads(line)) for line in text.getvalue().splitlines()]
    return ReadBack(kept, rejects, account, prepared, said.lines)
