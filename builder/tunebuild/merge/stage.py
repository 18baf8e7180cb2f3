"""The ``merge`` stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunebuild.extras import library_version
from tunebuild.merge.strategies import Strategy
from tunebuild.models.base_model import BaseModel
from tunebuild.store import Inputs, Progress, Tree


@dataclass(frozen=True, slots=True)
class MergeStage:
    """Folds what was trained into the base's weights, or with ``none`` leaves them alone. Deterministic."""

    strategy: Strategy
    base: BaseModel
    trained: Tree
    name: str = "merge"
    version: int = 3

    def inputs(self) -> Inputs:
        """Strategy, base weights, and what was trained where it goes into them."""
        common: Inputs = {"strategy": self.strategy, "base": dict(self.base.weight_digests)}
        if self.strategy == "none":
            return common  # so all adapters of a base share one output
        kept = ("adapter/", "model/", "quantization.json")
        return {
            **common,
            "trained": {f.path: f.digest for f in self.trained.files if f.path.startswith(kept)},
            "torch": library_version("torch"),
        }

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Merge."""
        from tunebuild.merge.run import copy_base, merge_adapter

        if self.strategy == "none":
            copy_base(base=self.base.directory, out=out, progress=progress)
            return
        merge_adapter(
            self.strategy, base=self.base.directory, trained=self.trained.root, out=out, progress=progress
        )
