"""The ``train`` stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunebuild.extras import library_version
from tunebuild.heavy_imports import heavy_imports
from tunebuild.models.base_model import BaseModel
from tunebuild.serve.engines.attention import attention_inputs
from tunebuild.store import Inputs, Progress, Tree
from tunebuild.train.loop.memory import grow_segments
from tunebuild.train.plan.settings import TrainSettings

if TYPE_CHECKING:
    from tunebuild.train.launch.together import Together

# Libraries whose version changes what training computes.
_LIBRARIES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")

# What is kept or told while training runs changes nothing about its result.
_PASSING = {"checkpoints", "report_to"}


@dataclass(frozen=True, slots=True)
class TrainStage:
    """Trains the adapter. Its output is recorded, not reproducible: hardware and threads differ.

    ``together`` are the processes that a launcher started, which train with this one.
    """

    settings: TrainSettings
    data: Tree
    base: BaseModel
    together: Together | None = None
    name: str = "train"
    version: int = 2

    def own(self) -> Inputs:
        """Settings and base weights."""
        return {
            "tuning": self.settings.tuning.model_dump(mode="json", exclude=_PASSING),
            "device": self.settings.device,
            "compute_dtype": self.settings.compute_dtype,
            "base": dict(self.base.weight_digests),
            "libraries": {name: library_version(name) for name in _LIBRARIES},
            **attention_inputs(self.base.config),
            **({"new_tokens": list(self.settings.new_tokens)} if self.settings.new_tokens else {}),
        }

    def upstream(self) -> Inputs:
        """The tokenized rows."""
        return {"rows": {f.path: f.digest for f in self.data.files if f.path.endswith(".arrow")}}

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Train; resumes from the last whole checkpoint in ``work``.

        Raises:
            TunebuildError: what training cannot do.
        """
        grow_segments()
        with heavy_imports():
            from tunebuild.train.launch.processes import train_in_processes
            from tunebuild.train.loop.run import train_adapter
            from tunebuild.train.plan.threads import training_threads

        alone = train_adapter if self.settings.processes == 1 else train_in_processes
        train = self.together.train_in_all_processes if self.together else alone
        with training_threads(work):
            train(
                self.settings,
                data=self.data.root,
                base=self.base.directory,
                work=work,
                out=out,
                progress=progress,
            )
