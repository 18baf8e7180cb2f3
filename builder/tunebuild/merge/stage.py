"""The ``merge`` stage."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Literal

from tunebuild.lock.base_model import BaseModel
from tunebuild.store import Inputs, Progress, Tree

Strategy = Literal["original", "dequantized", "trained"]


@dataclass(frozen=True, slots=True)
class MergeStage:
    """Folds what was trained into the base's weights. Deterministic."""

    strategy: Strategy
    base: BaseModel
    trained: Tree
    name: str = "merge"
    version: int = 2

    def inputs(self) -> Inputs:
        """Base weights, what was trained, and strategy."""
        kept = ("adapter/", "model/", "quantisation.json")
        return {
            "strategy": self.strategy,
            "base": dict(self.base.weight_digests),
            "trained": {f.path: f.digest for f in self.trained.files if f.path.startswith(kept)},
            "torch": package_version("torch"),
        }

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Merge."""
        from tunebuild.merge.run import merge_adapter

        merge_adapter(
            self.strategy, base=self.base.directory, trained=self.trained.root, out=out, progress=progress
        )
