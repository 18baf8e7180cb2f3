"""How many answers memory holds at the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_SHARE = 0.6  # of free memory for keys and values; the rest is for what a step computes
_MOST = {"cpu": 64, "cuda": 256}
_FALLBACK = 16


def rows_that_fit(model: Any, context: int, device: str) -> int:
    """Rows of a full context whose keys and values fit free memory, 1 to 64 on a CPU and 256 on a GPU.

    Args:
        model: loaded, on its device.
        context: tokens of a row.
        device: ``cpu`` or ``cuda``.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", 0)
    groups = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    layers = getattr(config, "num_hidden_layers", 0)
    each = 2 * layers * groups * width * context * next(model.parameters()).element_size()
    if not each:
        return min(_FALLBACK, _MOST[device])
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else free_memory()
    return max(1, min(_MOST[device], int(_SHARE * free / each)))


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: the machine's, cut by the container's limit."""
    lines = (root / "proc/meminfo").read_text("ascii").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    group = root / "sys/fs/cgroup"
    try:
        limit = (group / "memory.max").read_text("ascii").strip()
        if limit != "max":
            free = min(free, int(limit) - int((group / "memory.current").read_text("ascii")))
    except (OSError, ValueError):
        pass  # no limit, or an older hierarchy
    return max(0, free)
