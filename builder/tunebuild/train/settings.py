"""What training depends on, after everything that says ``auto`` has been decided."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tunebuild.spec.tuning import TuningSpec

ComputeDtype = Literal["bfloat16", "float32"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """A tuning section plus the decisions that the hardware made.

    Attributes:
        tuning: the spec's section.
        device: where it runs.
        compute_dtype: precision of matrix products; the base is loaded in it too.
    """

    tuning: TuningSpec
    device: Device
    compute_dtype: ComputeDtype

    @property
    def rows_per_pass(self) -> int:
        """Rows that go through the model at once."""
        return self.tuning.micro_batch_size or self.tuning.batch_size

    @property
    def checkpoints_activations(self) -> bool:
        """Whether activations are computed again in the backward pass instead of kept."""
        return self.device == "cuda"

    def steps(self, rows: int) -> int:
        """Optimizer steps over all epochs, for a number of training rows."""
        return math.ceil(math.ceil(rows / self.tuning.batch_size) * self.tuning.epochs)
