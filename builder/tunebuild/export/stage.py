"""The ``export`` stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunebuild.export.tool import Tool
from tunebuild.spec.exports import ExportSpec
from tunebuild.store import Inputs, Progress, Tree
from tunebuild.train.plan.settings import Device


@dataclass(frozen=True, slots=True)
class ExportStage:
    """Rounds the merged weights to fewer bits, calibrated on training rows.

    Attributes:
        export: the format and its settings.
        merged: the merge stage's output.
        data: the data stage's.
        seed: draws the rows.
        device: where it runs.
        tool: what does it.
    """

    export: ExportSpec
    merged: Tree
    data: Tree
    seed: int
    device: Device
    tool: Tool
    name: str = "export"
    version: int = 1

    def own(self) -> Inputs:
        """The settings but for the gates, and the tool's versions."""
        return {
            **self.export.model_dump(mode="json", exclude={"gates"}),
            "seed": self.seed,
            "device": self.device,
            "tool": self.tool.versions,
        }

    def upstream(self) -> Inputs:
        """The merged model, and the rows that calibrate."""
        return {
            "model": {f.path: f.digest for f in self.merged.files if f.path.startswith("model/")},
            "rows": {f.path: f.digest for f in self.data.files if f.path == "train.arrow"},
        }

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Quantize."""
        from tunebuild.export.run import quantize

        quantize(self, work, out, progress)
