"""The ``merge`` stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebuild.extras import library_version
from tunebuild.merge.strategies import Strategy
from tunebuild.models.base_model import BaseModel
from tunebuild.store import Inputs, Progress, Tree


@dataclass(frozen=True, slots=True)
class MergeStage:
    """Merges what was trained into the base's weights, or with ``none`` leaves them alone. Deterministic."""

    strategy: Strategy
    base: BaseModel
    trained: Tree
    name: str = "merge"
    version: int = 3

    def own(self) -> Inputs:
        """Strategy and base weights."""
        own: dict[str, Any] = {"strategy": self.strategy, "base": dict(self.base.weight_digests)}
        if self.strategy != "none":
            own["torch"] = library_version("torch")
        return own

    def upstream(self) -> Inputs:
        """What was trained, where it goes into the weights: all adapters beside a base share one output."""
        if self.strategy == "none":
            return {}
        kept = ("adapter/", "model/", "quantization.json")
        return {"trained": {f.path: f.digest for f in self.trained.files if f.path.startswith(kept)}}

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Merge."""
        from tunebuild.merge.run import copy_base, merge_adapter

        if self.strategy == "none":
            copy_base(base=self.base.directory, out=out, progress=progress)
            return
        merge_adapter(
            self.strategy, base=self.base.directory, trained=self.trained.root, out=out, progress=progress
        )
