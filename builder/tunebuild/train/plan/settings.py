"""What training depends on, after everything that says ``auto`` has been decided."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tunebuild.spec.tuning import TuningSpec

ComputeDtype = Literal["bfloat16", "float32"]
Device = Literal["cpu", "cuda"]


def ways_to_less(method: str) -> str:
    """What a spec may say so that a training of this method takes less memory."""
    leaner = {"full": "lora or qlora", "qlora": ""}.get(method, "qlora")
    return "lower tuning.max_length" + (f", or use tuning.method: {leaner}" if leaner else "")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """A tuning section plus the decisions that the hardware made.

    Attributes:
        tuning: the spec's section; its method is decided.
        device: where it runs.
        compute_dtype: precision of matrix products; the base is loaded in it too.
        available: bytes that the device has for training, or ``None`` if nobody knows.
        notes: a sentence for each decision.
        new_tokens: ids of control tokens whose rows of embedding and head an adapter trains.
    """

    tuning: TuningSpec
    device: Device
    compute_dtype: ComputeDtype
    available: int | None = None
    notes: tuple[str, ...] = ()
    new_tokens: tuple[int, ...] = ()

    @property
    def processes(self) -> int:
        """How many train together, on all nodes."""
        return self.tuning.nodes * self.tuning.processes

    @property
    def memory_limit(self) -> int | None:
        """Most bytes that training may take: the spec's bound or what the device has."""
        fit = None if self.tuning.memory == "auto" else self.tuning.memory.bytes
        return min((limit for limit in (fit, self.available) if limit is not None), default=None)

    @property
    def full(self) -> bool:
        """Whether all weights are trained, instead of an adapter."""
        return self.tuning.method == "full"

    @property
    def virtual_tokens(self) -> int:
        """Trained tokens that stand before each row."""
        peft = self.tuning.peft
        return peft.virtual_tokens if peft and peft.type != "ia3" else 0

    def left_of(self, positions: int | None) -> int | None:
        """How many of a base's positions virtual tokens leave; ``None`` where the base has no end."""
        return None if positions is None else positions - self.virtual_tokens

    @property
    def fuses(self) -> bool:
        """Whether the fused LoRA layer computes what is asked for, and pays.

        On a CPU a custom operator costs a small model more than the passes over memory that it saves.
        """
        lora, trains_lora = self.tuning.lora, self.tuning.method in ("lora", "qlora")
        return self.device == "cuda" and trains_lora and not lora.dropout and not lora.dora

    def steps(self, rows: int) -> int:
        """Optimizer steps over all epochs, for a number of training rows."""
        return math.ceil(math.ceil(rows / self.tuning.batch_size) * self.tuning.epochs)

    def warmup_steps(self, rows: int) -> int:
        """Steps of those over which the learning rate rises."""
        if self.tuning.warmup_ratio is not None:  # rounded as transformers does
            return math.ceil(self.tuning.warmup_ratio * self.steps(rows))
        wanted = self.tuning.warmup_steps
        return min(10, self.steps(rows) // 10) if wanted is None else wanted


@dataclass(frozen=True, slots=True)
class Execution:
    """How an optimizer step is computed; its result does not depend on it but for rounding.

    Attributes:
        packed: rows lie behind one another instead of side by side.
        fused: LoRA is one node of the graph.
        compiled: decoder layers go through ``torch.compile``.
        checkpointed: how many layers, from the first, compute their activations again in the backward pass.
        micro_batches: into how many micro-batches a step is cut, on each process.
        max_tokens: of a micro-batch; one that has more is done in halves.
    """

    packed: bool
    fused: bool
    compiled: bool
    checkpointed: int
    micro_batches: int
    max_tokens: int

    def to_json(self) -> dict[str, Any]:
        """For ``memory.json``."""
        return asdict(self)
