"""What the container may use of the machine."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

_BF16_FLAGS = frozenset(("avx512_bf16", "amx_bf16"))


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware; elsewhere it is emulated and 30 times slower."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return bool(flags and _BF16_FLAGS.intersection(flags[1].split()))


def usable_cores() -> int:
    """Cores that this process may run on: its affinity, cut by the container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no quota, or an older hierarchy: the affinity stands
    return max(1, cores)
