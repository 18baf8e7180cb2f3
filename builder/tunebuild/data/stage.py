"""The ``data`` stage: rows in; tokenised examples, the prompt and the checks out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from tunebuild.data.formats import PLAIN
from tunebuild.data.prepare import prepare
from tunebuild.data.rows import Kept, Prepared, Reject, RowSource
from tunebuild.data.selection import check_rejects, count_reasons, part_leaks, split, weigh
from tunebuild.errors import fail
from tunebuild.prompt import Renderer
from tunebuild.prompt.directory import save_prompt
from tunebuild.spec.data import DataSpec
from tunebuild.store import Digest, Inputs, Progress

_BARS = 12
_WIDTHS = [digit * 10**zeros for zeros in range(9) for digit in (1, 2, 5)]

#: Trained questions that travel in the image for ``verify``.
MAX_CHECKS = 400


@dataclass(frozen=True, slots=True)
class DataStage:
    """Prepares the training data.

    Output::

        train.arrow, eval.arrow   tokenised examples; eval only where rows are held out
        rejects.jsonl             every row that is not used, and why
        stats.json                counts, lengths, supervised share
        prompt/                   the prompt contract, as the image carries it, with checks.jsonl:
                                  trained questions and their answers
    """

    data: DataSpec
    train: tuple[RowSource, ...]
    held_out: tuple[RowSource, ...]
    file_digests: tuple[Digest, ...]
    renderer: Renderer
    tokenizer_dir: Path
    max_length: int
    seed: int
    vocabulary_size: int
    name: str = "data"
    version: int = 3

    def inputs(self) -> Inputs:
        """Contents of the files, never their paths."""
        return {
            "sources": [
                {
                    "digest": digest,
                    "format": source.format,
                    "columns": dict(source.columns),
                    "where": dict(source.where),
                    "weight": source.weight,
                    "held_out": held,
                }
                for digest, (source, held) in zip(
                    self.file_digests,
                    [*((s, False) for s in self.train), *((s, True) for s in self.held_out)],
                    strict=True,
                )
            ],
            "eval_fraction": self.data.eval.fraction,
            "on_leak": self.data.eval.on_leak,
            "deduplicate": self.data.deduplicate,
            "on_long": self.data.on_long,
            "max_rejected": self.data.max_rejected,
            "max_length": self.max_length,
            "seed": self.seed,
            "prompt": self.renderer.digest,
            "tokenizers": package_version("tokenizers"),
            "jinja2": package_version("jinja2"),
        }

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Write the output; nothing of it where the data breaks the contract."""
        # Arrow takes a quarter of a second to import, and a build with nothing to do should not wait for it.
        from tunebuild.data.tokenised import write_examples

        if (highest := self.renderer.tokenizer.vocabulary_size) > self.vocabulary_size:
            raise fail(
                "vocabulary",
                f"the tokenizer knows {highest} tokens, the model has embeddings for {self.vocabulary_size}",
                "tokenizer and model do not belong together",
                path="model.base",
            )

        def read(sources: tuple[RowSource, ...]) -> Prepared:
            return prepare(sources, self.renderer, self.data, self.max_length)

        prepared = read(self.train)
        held = read(self.held_out)
        rejects = prepared.rejects + held.rejects
        check_rejects(Prepared(prepared.kept + held.kept, rejects), self.data.max_rejected)
        apart, leaked = part_leaks(prepared.kept, held.kept, self.data.eval.on_leak)
        distinct, evaluation = split(apart, self.data.eval.fraction, self.seed)
        evaluation += held.kept
        train, left = weigh(distinct, self.seed)
        rejects += leaked + left
        _write_jsonl(out / "rejects.jsonl", [asdict(r) for r in rejects])
        self._say_formats({**prepared.formats, **held.formats}, progress)
        if not train:
            raise fail("no-rows", "no training row is left", path="data.train")
        write_examples(out / "train.arrow", (k.example for k in train))
        if evaluation:
            write_examples(out / "eval.arrow", (k.example for k in evaluation))
        stats = summarise(train, evaluation, rejects)
        (out / "stats.json").write_text(json.dumps(stats, indent=2) + "\n", "utf-8")
        talks = [k for k in distinct if k.messages[0]["role"] != PLAIN]
        first = [(f"data-{i}", list(k.messages[:-1])) for i, k in enumerate(talks[:8], 1)]
        save_prompt(out / "prompt", self.renderer, self.tokenizer_dir, first)
        _write_jsonl(out / "prompt" / "checks.jsonl", _checks(talks))
        unused = ", ".join(f"{count} {code}" for code, count in count_reasons(rejects).items())
        progress.say(
            f"{len(train)} training rows, {len(evaluation)} held out, "
            f"{len(rejects)} not used{f' ({unused})' if unused else ''}; "
            f"{stats['supervised_share']:.0%} of {stats['tokens']:,} tokens carry loss"
        )

    def _say_formats(self, found: Mapping[str, str], progress: Progress) -> None:
        for source in (*self.train, *self.held_out):
            if source.format == "auto":
                format_name = found.get(source.shown, "nothing: it has no rows")
                progress.say(f"{source.shown} is read as {format_name}")


def summarise(train: Sequence[Kept], evaluation: Sequence[Kept], rejects: Sequence[Reject]) -> dict[str, Any]:
    """Counts and lengths, for the plan and the report."""
    lengths = sorted(len(k.example.ids) for k in train)
    supervised = sum(end - start for k in train for start, end in k.example.supervised)
    return {
        "rows": {"train": len(train), "eval": len(evaluation), "rejected": len(rejects)},
        "rejected": count_reasons(rejects),
        "tokens": sum(lengths),
        "shortened": sum(k.shortened for k in train),
        "supervised_share": supervised / sum(lengths),
        "length": {
            "min": lengths[0],
            "median": lengths[len(lengths) // 2],
            "p95": lengths[int(len(lengths) * 0.95)],
            "max": lengths[-1],
        },
        "histogram": _histogram(lengths),
    }


def _histogram(lengths: Sequence[int]) -> list[dict[str, int]]:
    """At most a dozen bars of equal width, which is a round number; ``lengths`` is sorted."""
    span = lengths[-1] - lengths[0] + 1
    width = next(w for w in _WIDTHS if span <= w * _BARS)
    counts = Counter(length // width for length in lengths)
    return [
        {"low": bar * width, "high": (bar + 1) * width - 1, "rows": counts[bar]}
        for bar in range(lengths[0] // width, lengths[-1] // width + 1)
    ]


def _checks(talks: Sequence[Kept]) -> list[dict[str, Any]]:
    """Single-turn questions, evenly spread if there are more than travel."""
    single = [k for k in talks if sum(m["role"] == "assistant" for m in k.messages) == 1]
    step = max(1, -(-len(single) // MAX_CHECKS))
    return [{"messages": k.messages[:-1], "expected": k.messages[-1]["content"]} for k in single[::step]]


def _write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
