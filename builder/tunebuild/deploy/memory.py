"""How much memory an endpoint needs: sizes that the image has, and what the server will hold besides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunebuild.serve.bundle import Bundle
from tunebuild.serve.engines.sizes import BYTES, token_bytes

MIB = 1 << 20
# What a server holds without a model: libraries, threads, on a card what drives it. By engine and device.
_PROCESS = {
    ("transformers", "cpu"): 800 * MIB,
    ("transformers", "cuda"): 4096 * MIB,
    ("vllm", "cpu"): 2560 * MIB,
    ("vllm", "cuda"): 6144 * MIB,
}
# Compiled kernels, messages between the engine's processes, temporary files.
_SCRATCH = {
    ("transformers", "cpu"): 64 * MIB,
    ("transformers", "cuda"): 256 * MIB,
    ("vllm", "cpu"): 1024 * MIB,
    ("vllm", "cuda"): 2048 * MIB,
}
_ROOM = 1.2  # what a step computes with, and what an estimate cannot know
_STEP = 256 * MIB


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes.

    Attributes:
        weights: as they are served.
        keys_values: of all answers at once, each of the whole context; the most that can be.
        process: what the server holds besides.
        scratch: room for temporary files, which are in memory.
        on_card: whether weights, keys and values are on a GPU.
    """

    weights: int
    keys_values: int
    process: int
    scratch: int
    on_card: bool

    @property
    def host(self) -> int:
        """What the container is given, in whole steps of 256 MiB."""
        model = 0 if self.on_card else self.weights + self.keys_values
        return math.ceil((model + self.process) * _ROOM / _STEP + self.scratch / _STEP) * _STEP

    @property
    def card(self) -> int:
        """What a GPU must have at least: the weights and one step's room; 0 without one."""
        return math.ceil(self.weights * _ROOM) if self.on_card else 0


def estimate_memory(settings: Bundle, weights: int, config: Mapping[str, Any]) -> Memory:
    """Estimate.

    Args:
        settings: what the server is told.
        weights: bytes of the weights in the image.
        config: the model's ``config.json``.
    """
    place = (settings.engine, settings.device)
    # On a CPU 'auto' may turn out to be float32, which is the larger.
    auto = "bfloat16" if settings.device == "cuda" else "float32"
    element = BYTES[auto if settings.dtype == "auto" else settings.dtype]
    stored = BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), element)
    rows = settings.limits.concurrency or 1
    return Memory(
        weights=weights * element // stored,
        keys_values=token_bytes(config, element) * settings.limits.context * rows,
        process=_PROCESS[place],
        scratch=_SCRATCH[place],
        on_card=settings.device == "cuda",
    )
