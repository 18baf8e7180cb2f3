"""Makes the ``data`` stage's output: reads and tokenizes, chooses, writes. A batch in memory at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tunebuild.data.columns import Array, Columns
from tunebuild.data.findings import Findings
from tunebuild.data.prepare import Prepared, prepare
from tunebuild.data.privacy import masked_start
from tunebuild.data.reject_limit import no_rows
from tunebuild.data.rejects import Rejects
from tunebuild.data.rows import EXCERPT, Reject
from tunebuild.data.selection import Selection, select
from tunebuild.data.tokenized import open_rows, with_labels
from tunebuild.grammar import counted
from tunebuild.prompt import Message
from tunebuild.prompt.directory import save_prompt
from tunebuild.prompt.messages import TOOLS
from tunebuild.prompt.turns import unasked_keys
from tunebuild.store import Progress

if TYPE_CHECKING:
    from tunebuild.data.stage import DataStage

#: Most trained questions that travel in the image for ``verify``, evenly spread over the rows.
MAX_CHECKS = 400
_GOLDEN = 8

_BARS = 12
_WIDTHS = [digit * 10**zeros for zeros in range(9) for digit in (1, 2, 5)]


def run_data(stage: DataStage, work: Path, out: Path, progress: Progress) -> None:
    """Write the stage's output.

    Raises:
        TunebuildError: the data breaks the contract.
    """
    sources = stage.sources
    samples = work / "samples.arrow"
    with (
        (out / "rejects.jsonl").open("w", encoding="utf-8") as file,
        (out / "findings.jsonl").open("w", encoding="utf-8") as found_file,
    ):
        rejects, findings = Rejects(file), Findings(found_file)
        prepared = prepare(
            sources, stage.renderer, stage.data, stage.max_length, samples, rejects, findings, progress
        )
        columns = prepared.columns
        chosen = select(
            columns,
            rejects,
            stage.data,
            [False] * len(stage.train) + [True] * len(stage.held_out),
            [source.weight for source in sources],
            stage.seed,
        )
        for source in sources:
            if source.format == "auto":
                found = prepared.formats.get(source.shown, "nothing: it has no rows")
                progress.say(f"{source.shown} is read as {found}")
        if not chosen.times.any():
            raise no_rows(rejects)
        talks = chosen.distinct[columns.answers[chosen.distinct] > 0]
        single = talks[columns.answers[talks] == 1]
        count = min(len(single), MAX_CHECKS)
        checked = single[np.arange(count) * len(single) // max(1, count)]
        asked = _write(prepared, chosen, out, rejects, np.union1d(talks[:_GOLDEN], checked))
    samples.unlink()
    if chosen.evaluated.any():
        # Numbers, as this stage's inputs know no names.
        origin = columns.source[chosen.evaluated].tolist()
        (out / "eval_sources.json").write_text(json.dumps({"rows": origin}) + "\n", "utf-8")
    golden = [(f"data-{n}", asked[index][:-1]) for n, index in enumerate(talks[:_GOLDEN], 1)]
    for token in stage.new_tokens:  # which a user may type, and gets as text
        golden.append((f"literal-{token}", [{"role": "user", "content": f"What is {token} for?"}]))
    save_prompt(out / "prompt", stage.renderer, stage.tokenizer_dir, golden)
    with (out / "prompt" / "checks.jsonl").open("w", encoding="utf-8") as file:
        for index in checked:
            *question, answer = asked[index]
            if any(turn["role"] != TOOLS and unasked_keys(turn) for turn in question):
                continue  # no request could ask it
            reasoning, expected = stage.renderer.answers.said(answer)
            check = {"messages": question, "expected": expected}
            if reasoning:
                check["reasoning"] = reasoning
            if calls := answer.get("tool_calls"):
                check["calls"] = calls
            file.write(json.dumps(check, ensure_ascii=False) + "\n")
    stats = summarize(columns, chosen, rejects.counts)
    stats["longest"] = _longest(columns, chosen)
    stats["found"] = dict(sorted(findings.counts.items()))
    stats["unused"] = _unused_parts(prepared)
    stats["sources"] = _by_source(columns, chosen, len(sources))
    (out / "stats.json").write_text(json.dumps(stats, indent=2) + "\n", "utf-8")
    unused = ", ".join(f"{count} {code}" for code, count in stats["rejected"].items())
    rows = stats["rows"]
    if findings.counts:
        progress.say(f"found in rows: {', '.join(f'{n} {kind}' for kind, n in stats['found'].items())}")
    progress.say(
        f"{counted(rows['train'], 'training row')}, {rows['eval']:,} held out, "
        f"{rows['rejected']:,} not used{f' ({unused})' if unused else ''}; "
        f"{stats['supervised_share']:.0%} of {stats['tokens']:,} tokens are supervised"
    )


def _write(
    prepared: Prepared, chosen: Selection, out: Path, rejects: Rejects, wanted: Array
) -> dict[int, list[Message]]:
    """Write rows and rejects; returns the messages of the samples that are wanted."""
    asked: dict[int, list[Message]] = {}
    files = {"train": chosen.times}
    if chosen.evaluated.any():
        files["eval"] = chosen.evaluated.astype(np.int32)
    for name, times in files.items():
        with open_rows(out / f"{name}.arrow") as writer:
            for start, batch in _batches(prepared.path):
                here = np.repeat(np.arange(len(batch)), times[start : start + len(batch)])
                if len(here):
                    rows = batch.take(pa.array(here))
                    writer.write_batch(with_labels(rows["input_ids"], rows["spans"]))
                if name == "train":
                    rejects.add(_unused(batch, start, prepared.columns, chosen))
                    for index in wanted[(wanted >= start) & (wanted < start + len(batch))]:
                        asked[int(index)] = json.loads(batch["messages"][index - start].as_py())
    return asked


def _batches(path: Path) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches and where they start. Read, not mapped: mapped pages would count as our memory."""
    start = 0
    with pa.OSFile(str(path)) as file:
        for batch in pa.ipc.open_stream(file):
            yield start, batch
            start += len(batch)


def _unused(batch: pa.RecordBatch, start: int, columns: Columns, chosen: Selection) -> Iterator[Reject]:
    part = slice(start, start + len(batch))
    for index in start + np.flatnonzero((chosen.times[part] == 0) & ~chosen.evaluated[part]):
        if (other := chosen.duplicate_of[index]) >= 0:
            code = "near-duplicate" if chosen.near[index] else "duplicate"
            reason = f"says {'nearly ' * bool(chosen.near[index])}the same as {columns.name(other)}"
        elif (other := chosen.leaks_to[index]) >= 0:
            code, reason = "leaked", f"asks what {columns.name(other)} asks, which is held out"
        else:
            code, reason = "not-sampled", "was not drawn at its weight"
        file, line = columns.names[columns.source[index]], int(columns.line[index])
        excerpt = masked_start(batch["messages"][index - start].as_py(), EXCERPT)
        yield Reject(file, line, code, reason, excerpt)


def summarize(columns: Columns, chosen: Selection, rejected: Counter[str]) -> dict[str, Any]:
    """Counts and lengths, for the plan and the report."""
    lengths = np.sort(np.repeat(columns.tokens, chosen.times))
    tokens = int(lengths.sum())
    return {
        "rows": {
            "train": len(lengths),
            "eval": int(chosen.evaluated.sum()),
            "rejected": rejected.total(),
        },
        "rejected": dict(sorted(rejected.items())),
        "tokens": tokens,
        "shortened": int((columns.shortened * chosen.times).sum()),
        "supervised_share": int((columns.supervised * chosen.times).sum()) / tokens,
        "length": {
            "min": int(lengths[0]),
            "median": int(lengths[len(lengths) // 2]),
            "p95": int(lengths[int(len(lengths) * 0.95)]),
            "max": int(lengths[-1]),
        },
        "histogram": _histogram(lengths),
    }


def _unused_parts(prepared: Prepared) -> list[dict[str, Any]]:
    """What no prompt shows of rows; sources by number and the template without its name, as in the inputs."""
    return [
        {"source": number, **asdict(what), "count": count, "words": what.words(count)}
        for number, account in sorted(prepared.unused.items())
        for what, count in sorted(account.items())
    ]


def _by_source(columns: Columns, chosen: Selection, count: int) -> list[dict[str, int]]:
    """How many rows of each source are written, by its number. Files of rows are in the order of these."""
    parts = {"train": chosen.times, "eval": chosen.evaluated.astype(np.int64)}
    rows = {name: np.bincount(columns.source, times, count) for name, times in parts.items()}
    return [{name: int(of[number]) for name, of in rows.items()} for number in range(count)]


def _longest(columns: Columns, chosen: Selection) -> dict[str, int]:
    """The longest row that is trained on or held out; its source by number, as in the stage's inputs."""
    used = np.flatnonzero((chosen.times > 0) | chosen.evaluated)
    row = used[columns.tokens[used].argmax()]
    place = {"source": int(columns.source[row]), "line": int(columns.line[row])}
    return {"tokens": int(columns.tokens[row]), **place}


def _histogram(lengths: Array) -> list[dict[str, int]]:
    """At most a dozen bars of equal width, which is a round number; ``lengths`` is sorted."""
    low, high = int(lengths[0]), int(lengths[-1])
    width = next(w for w in _WIDTHS if high - low + 1 <= w * _BARS)
    counts = np.bincount(lengths // width - low // width)
    return [
        {"low": bar * width, "high": (bar + 1) * width - 1, "rows": int(count)}
        for bar, count in enumerate(counts, low // width)
    ]
