"""Prepared rows for people to look at: what the model reads, what it learns, and how long it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

from tunebuild.data.privacy import mask
from tunebuild.pages import page_environment
from tunebuild.prompt import PromptTokenizer
from tunebuild.store import Tree

#: ``given`` is read, ``supervised`` is in the loss; control tokens are either, shown as spelled.
Kind = Literal["given", "supervised"]

_MOST = 200
_FEW = 3


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tokens of one kind, as text."""

    text: str
    kind: Kind
    control: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """One tokenized row: its source's name and its number there, from 1, tokens, supervised tokens, and its
    text, masked.
    """

    source: str
    number: int
    tokens: int
    supervised: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class DataView:
    """What the ``data`` stage made.

    Attributes:
        part: ``train`` or ``eval``, where the samples are from.
        stats: the stage's ``stats.json``.
        samples: some rows of each source, evenly spread.
        sources: each source's name and how many of its rows are trained on and held out.
        unshown: what no prompt shows of the rows, a line each, in the order of the sources.
        rejects: the first rows that are not used, as in ``rejects.jsonl``.
        unused: the first few of each reason, by the reason's code.
        all_unused: where they are all listed.
        findings: the first secrets and personal data in rows, as in ``findings.jsonl``.
    """

    part: str
    stats: dict[str, Any]
    samples: tuple[Sample, ...]
    sources: tuple[tuple[str, int, int], ...]
    unshown: tuple[str, ...]
    rejects: tuple[dict[str, Any], ...]
    unused: dict[str, list[dict[str, Any]]]
    all_unused: Path
    findings: tuple[dict[str, Any], ...]


def view_data(
    output: Tree, tokenizer: PromptTokenizer, part: str, count: int, names: Sequence[str]
) -> DataView:
    """Read a finished ``data`` stage.

    Args:
        output: the stage's output.
        tokenizer: what the rows were tokenized with.
        part: ``train`` or ``eval``; without held-out rows the latter has no samples.
        count: how many samples of each source; all of one that has fewer.
        names: the sources' names, by number.
    """
    import pyarrow as pa

    stats = json.loads(output.path("stats.json").read_text("utf-8"))
    samples: list[Sample] = []
    path = output.path(f"{part}.arrow")
    if path.is_file():
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_stream(file).read_all()
            start = 0
            for name, rows in zip(names, (of[part] for of in stats["sources"]), strict=True):
                for index in range(0, rows, max(1, rows // max(1, count)))[:count]:
                    row = table.slice(start + index, 1).to_pylist()[0]
                    samples.append(_sample(name, index + 1, row["input_ids"], row["labels"], tokenizer))
                start += rows
    rejects, findings = (_first_lines(output, name) for name in ("rejects.jsonl", "findings.jsonl"))
    path = output.path("rejects.jsonl")
    return DataView(
        part,
        stats,
        tuple(samples),
        tuple((name, of["train"], of["eval"]) for name, of in zip(names, stats["sources"], strict=True)),
        unshown(stats, names),
        rejects,
        _first_of_each(path, stats["rejected"]),
        path,
        findings,
    )


def unshown(stats: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """What no prompt shows of rows, a line each.

    Args:
        stats: the stage's ``stats.json``.
        names: the sources' names, by number.
    """
    return tuple(f"{names[part['source']]}: {part['words']}" for part in stats["unused"])


def _first_lines(output: Tree, name: str) -> tuple[dict[str, Any], ...]:
    with output.path(name).open(encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in islice(lines, _MOST))


def _first_of_each(path: Path, counts: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {code: [] for code in counts}
    left = sum(min(count, _FEW) for count in counts.values())
    with path.open(encoding="utf-8") as lines:
        while left:
            reject = json.loads(next(lines))
            of_code = found[reject["code"]]
            if len(of_code) < _FEW:
                of_code.append(reject)
                left -= 1
    return found


def pieces_of(ids: Sequence[int], labels: Sequence[int], tokenizer: PromptTokenizer) -> tuple[Piece, ...]:
    """The text of a row in runs: a control token by itself, other tokens as long as their kind is one."""
    found: list[Piece] = []
    controls = tokenizer.control_ids

    def run_of(pair: tuple[int, int]) -> tuple[Kind, int]:
        token, label = pair
        # A control token is a run of its own, whatever stands beside it.
        return "given" if label < 0 else "supervised", token if token in controls else -1

    for (kind, control), run in groupby(zip(ids, labels, strict=True), run_of):
        tokens = [token for token, _ in run]
        if control < 0:
            found.append(Piece(tokenizer.decode(tokens), kind, control=False))
        else:
            found += [Piece(tokenizer.token_text(control), kind, control=True)] * len(tokens)
    return tuple(found)


def as_html(view: DataView, name: str) -> str:
    """A page that needs no other file and no script."""
    environment = page_environment("data", html=True)
    return environment.get_template("page.html.j2").render(name=name, view=view, stats=view.stats)


def _sample(
    source: str, number: int, ids: list[int], labels: list[int], tokenizer: PromptTokenizer
) -> Sample:
    supervised = sum(label >= 0 for label in labels)
    pieces = (replace(piece, text=mask(piece.text)) for piece in pieces_of(ids, labels, tokenizer))
    return Sample(source, number, len(ids), supervised, tuple(pieces))
