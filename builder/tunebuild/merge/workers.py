"""How many tensors are merged at the same time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from tunebuild.merge.nf4 import NF4RoundTrip
from tunebuild.merge.safetensors_io import StoredTensor

_MOST = 16  # more threads wait for the disk, and each holds its blocks
_MEMORY = 600_000_000  # bytes that they may take together
_BYTES_PER_VALUE = 0.7  # of a matrix that is quantised and back: its codes and scales
_BLOCKS = 90_000_000  # bytes of a worker's blocks, and of what bitsandbytes makes on the way


def workers(tensors: Sequence[StoredTensor], round_trip: NF4RoundTrip | None) -> int:
    """One a core, as long as the matrices that are held in 4 bits on the way fit."""
    cores = min(len(os.sched_getaffinity(0)), _MOST)
    if round_trip is None:
        return cores
    largest = max((math.prod(t.shape) for t in tensors if t.name in round_trip.weights), default=1)
    return max(1, min(cores, int(_MEMORY / (_BYTES_PER_VALUE * largest + _BLOCKS))))


@contextmanager
def one_thread_each(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that share the cores among them instead of each asking for all."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, "merge", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
