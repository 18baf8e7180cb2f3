"""How many threads a training on CPU computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def training_threads(work: Path, spared_cores: int) -> Iterator[None]:
    """Leave cores to what runs beside the training.

    torch's threads wait for one another by spinning, so one that has to share its core holds up all of them:
    on two cores, a build took 52 s with one thread for the training and 61 to 71 s with two.

    Args:
        work: where the number is kept. A resumed training goes on with as many threads as it began with,
            since another number may add up in another order.
        spared_cores: how many of torch's threads not to use; one is always left.
    """
    kept, before = work / "threads", torch.get_num_threads()
    if not kept.is_file():
        kept.write_text(f"{max(1, before - spared_cores)}\n", "ascii")
    torch.set_num_threads(int(kept.read_text("ascii")))
    try:
        yield
    finally:
        torch.set_num_threads(before)
