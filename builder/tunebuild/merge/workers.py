"""How many tensors are merged at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

_MOST = 8  # more threads wait for each other and for the disk, and each holds its blocks


def workers() -> int:
    """One a core, up to a number."""
    return min(len(os.sched_getaffinity(0)), _MOST)


@contextmanager
def one_thread_each(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that share the cores among them instead of each asking for all."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, "merge", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
