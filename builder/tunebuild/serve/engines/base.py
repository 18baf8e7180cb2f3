"""The engine interface: token ids and sampling settings in, token ids and log-probabilities out.

An engine knows neither text nor templates. The one exception is a :class:`Constraint`, whose text speaks of
characters: an engine compiles it against the tokenizer file of its :class:`EngineSetup`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tunebuild.serve.engines.generation import Generation


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """What an engine is made of. Making one is cheap; :meth:`Engine.start` loads.

    Attributes:
        model: directory with configuration and safetensors.
        adapter: an adapter in PEFT's format that is put on top, if any.
        adapter_name: its name; holds its digest, so that no engine takes it for another.
        tokenizer: the ``tokenizer.json`` that prompts are encoded with, for constraints.
        device: ``cpu`` or ``cuda``.
        dtype: ``auto`` is bfloat16 where the hardware has it, else float32.
        context: longest prompt and answer together, in tokens.
        concurrency: answers at the same time; ``None`` is as many as memory holds.
    """

    model: Path
    adapter: Path | None
    adapter_name: str
    tokenizer: Path
    device: Literal["cpu", "cuda"]
    dtype: Literal["auto", "bfloat16", "float32"]
    context: int
    concurrency: int | None = None


class Engine(Protocol):
    """Runs a model. A request's failure ends that request alone."""

    def start(self) -> None:
        """Load the model; blocks until it can answer. Called in a thread. Raises whatever is wrong."""

    def submit(self, generation: Generation) -> None:
        """Take an answer. Called on the event loop; returns at once and raises nothing about the request."""

    def stop(self) -> None:
        """End the engine; running answers finish as cancelled. Safe to call twice, or before a start."""

    async def score(self, rows: Sequence[list[int]]) -> list[list[float]]:
        """Log-probabilities of each row's tokens after the first, given those before them.

        Args:
            rows: token ids, each at least two and fewer than the context; asked before any answer.
        """

    @property
    def dtype(self) -> str:
        """Precision of the weights in memory, such as ``bfloat16``; valid once started."""

    @property
    def healthy(self) -> bool:
        """Whether it can still answer."""

    @property
    def capacity(self) -> int:
        """Answers at the same time; valid once started."""

    @property
    def running(self) -> int:
        """Answers that are being computed now, without those that wait."""
