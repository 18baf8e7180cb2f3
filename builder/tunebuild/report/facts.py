"""Gathers what the stages recorded, as the templates read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebuild.report.curves import Curve
from tunebuild.store import Tree, TreeFile

# What is read of each stage's output. `memory.json` is there where training measured its memory.
_FILES = {
    "data": ("stats.json",),
    "train": ("metrics.jsonl", "result.json", "memory.json"),
    "merge": ("merge.json",),
    "evaluate": ("metrics.json", "samples.json"),
}


@dataclass(frozen=True, slots=True)
class Records:
    """The outputs of the stages that a report tells of."""

    data: Tree
    train: Tree
    merge: Tree
    evaluate: Tree

    @property
    def files(self) -> dict[str, TreeFile]:
        """What a report is made from, by stage and name."""
        return {
            f"{stage}/{file.path}": file
            for stage, names in _FILES.items()
            for file in getattr(self, stage).files
            if file.path in names
        }

    def read(self) -> Facts:
        """Everything in memory."""
        stats, result = _json(self.data.path("stats.json")), _json(self.train.path("result.json"))
        lines = self.train.path("metrics.jsonl").read_text("utf-8").splitlines()
        memory = self.train.path("memory.json")
        evaluated = _json(self.evaluate.path("metrics.json"))
        return Facts(
            stats,
            result,
            _curve([json.loads(line) for line in lines]),
            _json(memory) if memory.is_file() else None,
            _json(self.merge.path("merge.json")),
            evaluated,
            evaluated["metrics"],
            _json(self.evaluate.path("samples.json")),
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What the records say.

    Attributes:
        stats: of the rows.
        result: of the training.
        curve: losses by step.
        memory: planned and measured bytes, where they were recorded. What was measured is not shown,
            as it differs between two trainings that come to the same adapter.
        merge: strategy, and how far each tensor moved.
        evaluated: which rows were asked, and the divergence of each strategy.
        metrics: all figures by name.
        texts: written answers, ``samples`` and ``general``.
    """

    stats: Mapping[str, Any]
    result: Mapping[str, Any]
    curve: Curve
    memory: Mapping[str, Any] | None
    merge: Mapping[str, Any]
    evaluated: Mapping[str, Any]
    metrics: Mapping[str, float]
    texts: Mapping[str, Any]

    @property
    def held_out(self) -> bool:
        """Whether the figures are of rows that were not trained on."""
        return bool(self.evaluated["of"] == "eval.arrow")

    @property
    def adapter_apart(self) -> bool:
        """Whether the adapter was not merged, and stands beside the base's weights."""
        return bool(self.evaluated["strategy"] == "none")


def _curve(entries: list[dict[str, Any]]) -> Curve:
    return Curve(
        tuple((entry["step"], entry["loss"]) for entry in entries if "loss" in entry),
        tuple((entry["step"], entry["eval_loss"]) for entry in entries if "eval_loss" in entry),
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
