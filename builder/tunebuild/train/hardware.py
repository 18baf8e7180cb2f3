"""What this machine can compute in, found without loading torch."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from tunebuild.spec.tuning import TuningSpec
from tunebuild.train.settings import ComputeDtype, Device, TrainSettings

# Processors with these multiply bfloat16 in hardware. On others a bfloat16 product is emulated and was
# measured 30 times slower than a float32 one.
_BF16_FLAGS = frozenset(("avx512_bf16", "amx_bf16"))


@cache
def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware; false where that cannot be found out."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return bool(flags and _BF16_FLAGS.intersection(flags[1].split()))


@cache
def find_device() -> Device:
    """``cuda`` if torch sees a card."""
    if not Path("/proc/driver/nvidia/version").exists():
        return "cpu"  # spares importing torch to learn that there is no driver
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def decide(tuning: TuningSpec, device: Device | None = None) -> TrainSettings:
    """Settle what the spec leaves to the machine. The result is part of the stage's key.

    Args:
        tuning: the spec's section.
        device: where training will run, if not on this machine.
    """
    device = device or find_device()
    dtype: ComputeDtype
    if tuning.compute_dtype == "auto":
        dtype = "bfloat16" if device == "cuda" or cpu_has_bfloat16() else "float32"
    else:
        dtype = tuning.compute_dtype
    return TrainSettings(tuning, device, dtype)
