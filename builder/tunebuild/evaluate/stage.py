"""The ``evaluate`` stage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path

from tunebuild.evaluate.metrics import Metrics, measure
from tunebuild.heavy_imports import heavy_imports
from tunebuild.lock.base_model import BaseModel
from tunebuild.store import Inputs, Progress, Tree
from tunebuild.train.settings import TrainSettings

_RECORD = "metrics.json"


@dataclass(frozen=True, slots=True)
class EvaluateStage:
    """Asks base, trained and merged model about the held-out rows, or about the training rows if none are."""

    settings: TrainSettings
    base: BaseModel
    data: Tree
    trained: Tree
    merged: Tree
    name: str = "evaluate"
    version: int = 1

    def inputs(self) -> Inputs:
        """The three models and the rows."""
        return {
            "method": self.settings.tuning.method,
            "device": self.settings.device,
            "compute_dtype": self.settings.compute_dtype,
            "base": dict(self.base.weight_digests),
            "trained": {f.path: f.digest for f in self.trained.files if f.path.startswith("adapter/")},
            "merged": {f.path: f.digest for f in self.merged.files if f.path.startswith("model/")},
            "rows": {f.path: f.digest for f in self.data.files if f.path == self._rows},
            "libraries": {name: package_version(name) for name in ("torch", "transformers", "peft")},
        }

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Measure. Limits are held against the figures afterwards, so moving one measures nothing again."""
        with heavy_imports():
            from tunebuild.evaluate.models import ask_merged, ask_trained, choose_rows, targets
            from tunebuild.train.quiet import quieten_libraries
            from tunebuild.train.rows import load_rows

        quieten_libraries()
        rows = choose_rows(load_rows(self.data.path(self._rows)), self.base.vocabulary_size)
        progress.step(0, 2, "the trained model")
        base, trained = ask_trained(self.base.directory, self.trained.path("adapter"), self.settings, rows)
        progress.step(1, 2, "the merged model")
        merged = ask_merged(self.merged.path("model"), self.settings, rows)
        figures = measure(base, trained, merged, targets(rows))
        record = {"metrics": figures, "rows": len(rows), "of": self._rows}
        (out / _RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", "utf-8")
        kind = "held-out" if self._rows == "eval.arrow" else "training"
        progress.say(
            f"merged against trained on {len(rows)} {kind} rows: KL {figures['merge_kl']:.2g}, "
            f"same token {figures['merge_top1']:.1%}; "
            f"loss {figures['base_loss']:.3f} -> {figures['eval_loss']:.3f}"
        )

    @property
    def _rows(self) -> str:
        names = {f.path for f in self.data.files}
        return "eval.arrow" if "eval.arrow" in names else "train.arrow"


def read_metrics(output: Tree) -> Metrics:
    """The figures of a finished evaluation."""
    metrics: dict[str, float] = json.loads(output.path(_RECORD).read_text("utf-8"))["metrics"]
    return metrics
