"""The ``evaluate`` stage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tunebuild.evaluate.asked import SOURCES, general_prompts
from tunebuild.evaluate.metrics import Metrics
from tunebuild.evaluate.tasks import Task
from tunebuild.extras import library_version
from tunebuild.heavy_imports import heavy_imports
from tunebuild.merge.strategies import Strategy
from tunebuild.models.base_model import BaseModel
from tunebuild.serve.bundle import PARITY_FILE
from tunebuild.serve.engines.attention import attention_inputs
from tunebuild.spec.evaluation import EvaluationSpec
from tunebuild.store import Inputs, Progress, Tree
from tunebuild.train.plan.settings import TrainSettings

_RECORD = "metrics.json"
SAMPLES = "samples.json"

_LIBRARIES = ("torch", "transformers", "peft", "torchmetrics")
_TASKS_LIBRARY = "lm_eval"


@dataclass(frozen=True, slots=True)
class EvaluateStage:
    """Asks base, trained and merged model about the held-out rows, or about the training rows if none are.

    Attributes:
        evaluation: how many answers are written out.
        tasks: what ``evaluation.tasks`` means.
        strategies: how the merged files were made, and another merge to be measured beside it, if any.
    """

    settings: TrainSettings
    evaluation: EvaluationSpec
    tasks: tuple[Task, ...]
    base: BaseModel
    strategies: tuple[Strategy, ...]
    data: Tree
    trained: Tree
    merged: Tree
    name: str = "evaluate"
    version: int = 8

    def own(self) -> Inputs:
        """What is asked, and how."""
        return {
            "method": self.settings.tuning.method,
            "device": self.settings.device,
            "compute_dtype": self.settings.compute_dtype,
            "evaluation": self.evaluation.model_dump(mode="json", exclude={"tasks"}),
            "tasks": [task.inputs() for task in self.tasks],  # by what they are, not where they stand
            "general": general_prompts(),
            "strategies": list(self.strategies),
            "base": dict(self.base.weight_digests),
            "libraries": {
                name: library_version(name)
                for name in (*_LIBRARIES, *((_TASKS_LIBRARY,) if self.tasks else ()))
            },
            **attention_inputs(self.base.config),
        }

    def upstream(self) -> Inputs:
        """The trained and the merged model, the rows and the prompt contract."""
        trained = ("adapter/", "model/", "quantization.json")
        return {
            "trained": {f.path: f.digest for f in self.trained.files if f.path.startswith(trained)},
            "merged": {f.path: f.digest for f in self.merged.files if f.path.startswith("model/")},
            "rows": {f.path: f.digest for f in self.data.files if f.path in (self._rows, SOURCES)},
            "prompt": {f.path: f.digest for f in self.data.files if f.path == "prompt/prompt.json"},
        }

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Measure. Limits are held against the figures afterwards, so moving one measures nothing again."""
        with heavy_imports():
            from tunebuild.evaluate.run import evaluate

        found = evaluate(self, self._rows, progress)
        (out / _RECORD).write_text(json.dumps(found.record, indent=2, sort_keys=True) + "\n", "utf-8")
        texts = json.dumps(found.texts, indent=1, ensure_ascii=False) + "\n"
        (out / SAMPLES).write_text(texts, "utf-8")
        found.parity.save(out / PARITY_FILE)

    @property
    def strategy(self) -> Strategy:
        """How the merged files were made."""
        return self.strategies[0]

    @property
    def alternative(self) -> Strategy | None:
        """Another merge to be measured beside it."""
        return self.strategies[1] if len(self.strategies) > 1 else None

    @property
    def _rows(self) -> str:
        return rows_measured(self.data)


def rows_measured(data: Tree) -> str:
    """The file of the rows that figures are of."""
    names = {f.path for f in data.files}
    return "eval.arrow" if "eval.arrow" in names else "train.arrow"


def read_metrics(output: Tree) -> Metrics:
    """The figures of a finished evaluation; those of tasks as ``tasks.TASK.METRIC``, as gates name them."""
    record = json.loads(output.path(_RECORD).read_text("utf-8"))
    metrics: dict[str, float] = record["metrics"]
    for task, found in record["tasks"].items():
        metrics |= {f"tasks.{task}.{name}": value["tuned"] for name, value in found.items()}
    return metrics


def closer_strategy(output: Tree) -> Strategy:
    """The merge that is closer to the trained model, of those that an evaluation measured."""
    strategies: dict[Strategy, float] = json.loads(output.path(_RECORD).read_text("utf-8"))["strategies"]
    return min(strategies, key=strategies.__getitem__)
