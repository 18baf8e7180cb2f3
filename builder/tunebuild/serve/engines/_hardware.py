"""What the container may use of the machine."""

from __future__ import annotations

import math
import os
import re
import time
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


class FreeCores:
    """Cores that other processes leave free, measured again every few seconds.

    Threads of a product wait for each other, so one that shares its core with another process slows all of
    them to a fraction: fewer threads are faster then.

    Attributes:
        count: threads to compute with, 1 to :func:`usable_cores`.
    """

    def __init__(self, stat: Path = Path("/proc/stat"), every: float = 5.0) -> None:
        self._stat, self._every = stat, every
        self._cores = usable_cores()
        self._busy, self._own, self._at = self._read()
        self.count = self._cores

    def changed(self) -> bool:
        """Measure, if it is time to; whether ``count`` is another one now."""
        if (seconds := time.monotonic() - self._at) < self._every:
            return False
        (busy, own, at), before = self._read(), (self._busy, self._own)
        others = max(0.0, (busy - before[0]) - (own - before[1])) / seconds
        self._busy, self._own, self._at = busy, own, at
        # Half a core's worth of small work of others is not worth a thread.
        count = max(1, min(self._cores, (os.cpu_count() or 1) - math.floor(others + 0.4)))
        changed, self.count = count != self.count, count
        return changed

    def _read(self) -> tuple[float, float, float]:
        """Seconds of computing of the machine and of this process, and now."""
        own = time.process_time()
        try:
            user, nice, system, *_ = map(int, self._stat.read_text("ascii").split("\n", 1)[0].split()[1:])
            busy = (user + nice + system) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError):
            busy = own  # not to be seen here: nobody else is there
        return busy, own, time.monotonic()
