"""The check of the architecture as a stage, so that it is done once and costs later plans no import."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunebuild.extras import library_version
from tunebuild.models.base_model import BaseModel
from tunebuild.preflight.architecture import check_architecture
from tunebuild.spec.tuning import TuningSpec
from tunebuild.store import Inputs, Progress, digest_file
from tunebuild.train.plan.shapes import read_tensors

#: What decides how a model is built and where adapters go; without them nothing can be checked.
LIBRARIES = ("torch", "transformers", "peft")


@dataclass(frozen=True, slots=True)
class ArchitectureStage:
    """Passes if a base can be trained as a spec says, merged, evaluated and served. Loads no weights.

    Attributes:
        base: the model.
        tuning: the spec's section, its method decided.
        merges: whether the adapter is merged, not served beside the base.
        engine: what will serve the model.
        new_tokens: ids of control tokens whose rows are trained.
    """

    base: BaseModel
    tuning: TuningSpec
    merges: bool
    engine: Literal["transformers", "vllm"]
    new_tokens: tuple[int, ...] = ()
    name: str = "architecture"
    version: int = 3

    def own(self) -> Inputs:
        """Configuration, names and shapes of the weights, and what is asked of them."""
        directory = self.base.directory
        return {
            "config": digest_file(directory / "config.json"),
            "tensors": {name: list(shape) for name, shape in read_tensors(directory).items()},
            "tuning": self.tuning.model_dump(mode="json", include={"method", "lora", "peft", "shard"}),
            "merges": self.merges,
            "engine": self.engine,
            "new_tokens": list(self.new_tokens),
            "libraries": {name: library_version(name) for name in LIBRARIES},
        }

    def upstream(self) -> Inputs:
        """Nothing: it comes before all other stages."""
        return {}

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Check.

        Raises:
            TunebuildError: with the way out.
        """
        check_architecture(
            self.base.directory,
            self.tuning,
            merges=self.merges,
            engine=self.engine,
            new_tokens=self.new_tokens,
        )
        (out / "passed.json").write_text(json.dumps({"passed": True}) + "\n", "utf-8")
