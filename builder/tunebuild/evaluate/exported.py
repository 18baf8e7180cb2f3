"""The ``exported`` stage: the figures of an export, from its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.evaluate.stage import rows_measured
from tunebuild.extras import install_command, library_version
from tunebuild.heavy_imports import heavy_imports
from tunebuild.models.base_model import BaseModel
from tunebuild.serve.engines.attention import attention_inputs
from tunebuild.store import Inputs, Progress, Tree
from tunebuild.train.plan.settings import TrainSettings

_RECORD = "metrics.json"
_LIBRARIES = ("torch", "transformers", "peft", "compressed-tensors")


@dataclass(frozen=True, slots=True)
class ExportedStage:
    """Asks base, trained and exported model about the rows that the merged one was measured on.

    Attributes:
        title: of the export, for people.
        exported: the export stage's output.
    """

    title: str
    settings: TrainSettings
    base: BaseModel
    data: Tree
    trained: Tree
    exported: Tree
    name: str = "exported"
    version: int = 1

    def own(self) -> Inputs:
        """The base, and how it is asked."""
        return {
            "method": self.settings.tuning.method,
            "device": self.settings.device,
            "compute_dtype": self.settings.compute_dtype,
            "base": dict(self.base.weight_digests),
            "libraries": {name: library_version(name) for name in _LIBRARIES},
            **attention_inputs(self.base.config),
        }

    def upstream(self) -> Inputs:
        """The trained and the exported model, and the rows."""
        trained = ("adapter/", "model/")
        return {
            "trained": {f.path: f.digest for f in self.trained.files if f.path.startswith(trained)},
            "exported": {f.path: f.digest for f in self.exported.files},
            "rows": {f.path: f.digest for f in self.data.files if f.path == rows_measured(self.data)},
        }

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Measure; limits are held against the figures afterwards."""
        with heavy_imports():
            from tunebuild.evaluate.run_exported import measure_exported

        record = measure_exported(self, rows_measured(self.data), progress)
        (out / _RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", "utf-8")


def read_exported(output: Tree) -> dict[str, Any]:
    """``metrics``, as the gates of exports name them, and of how many ``rows`` of which file."""
    record: dict[str, Any] = json.loads(output.path(_RECORD).read_text("utf-8"))
    return record


def require_reader() -> None:
    """Say before a training that what is exported could not be read back after it.

    Raises:
        TunebuildError: compressed-tensors is not installed.
    """
    if find_spec("compressed_tensors") is None:
        message = "reading exports back needs compressed-tensors, which is not installed"
        raise fail("no-compressed-tensors", message, install_command(("export",)), path="exports")
