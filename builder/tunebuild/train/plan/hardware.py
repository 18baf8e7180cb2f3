"""What this machine can compute in, found without loading torch."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tunebuild.errors import fail
from tunebuild.spec.tuning import TuningSpec
from tunebuild.train.plan.settings import ComputeDtype, Device, TrainSettings

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
    """``cuda`` if torch sees a card; where nothing but plans can be made, if there is a driver."""
    if not Path("/proc/driver/nvidia/version").exists():
        return "cpu"  # spares importing torch to learn that there is no driver
    if find_spec("torch") is None:
        return "cuda"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def device_memory(device: Device) -> int | None:
    """Bytes that this machine's device has for this process; ``None`` if it has no such device."""
    if device == "cpu":
        text = Path("/proc/meminfo").read_text("ascii")
        total = int(text.partition("MemTotal:")[2].split()[0]) * 1024
        try:
            return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
        except (OSError, ValueError):  # no control group, or "max"
            return total
    if find_device() == "cpu" or find_spec("torch") is None:
        return None  # planning for a card that is elsewhere
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def why_not_compile() -> str:
    """Why ``torch.compile`` cannot make kernels for a card here; empty if it can."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "there is no C compiler, which triton needs"
    return ""


def decide(
    tuning: TuningSpec,
    device: Device | None = None,
    *,
    base_parameters: int = 0,
    memory: int | None = None,
) -> TrainSettings:
    """Settle what the spec leaves to the machine. The result is part of the stage's key.

    Args:
        tuning: the spec's section.
        device: where training will run, if not on this machine.
        base_parameters: of the base model, for ``method: auto``.
        memory: bytes of the device, if not this machine's.

    Raises:
        TunebuildError: ``method: auto`` takes one that the adapter's first values do not go with.
    """
    device = device or find_device()
    dtype: ComputeDtype
    if tuning.compute_dtype == "auto":
        dtype = "bfloat16" if device == "cuda" or cpu_has_bfloat16() else "float32"
    else:
        dtype = tuning.compute_dtype
    settings = TrainSettings(tuning, device, dtype, memory or device_memory(device))
    if tuning.method != "auto":
        return settings
    weights = base_parameters * (2 if dtype == "bfloat16" else 4)
    limit = settings.memory_limit
    fits = limit is None or weights <= limit / 2
    method: Literal["lora", "qlora"] = "lora" if fits else "qlora"
    note = f"method {method}: the base takes {weights / 1e9:.1f} GB in {dtype}, " + (
        "and the device's memory is not known: give --device-memory"
        if limit is None
        else f"{'at most' if fits else 'more than'} half of the {limit / 1e9:.1f} GB that are there"
    )
    init = tuning.lora.init
    if (init == "loftq" and method == "lora") or (init in ("pissa", "olora") and method == "qlora"):
        raise fail("init", f"'{init}' does not go with {note}", "use another init", path="tuning.lora.init")
    return replace(settings, tuning=tuning.model_copy(update={"method": method}), notes=(note,))
