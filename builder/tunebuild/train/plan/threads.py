"""How many threads a training on CPU computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def training_threads(work: Path) -> Iterator[None]:
    """Resume a training with as many threads as it began with: another number may add up in another order.

    Args:
        work: where the number is kept.
    """
    kept, before = work / "threads", torch.get_num_threads()
    if not kept.is_file():
        kept.write_text(f"{before}\n", "ascii")
    torch.set_num_threads(int(kept.read_text("ascii")))
    try:
        yield
    finally:
        torch.set_num_threads(before)
