"""Which rows go through the model together.

An optimizer step sees exactly the rows that the spec's ``batch_size`` says, packed or not, so packing changes
the speed of a step and not its result. The rows of a step are spread evenly over its micro-batches, since the
longest one decides over memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

#: Number of a row, or ``~number`` (negative) for that row without its loss.
Index = int


@dataclass(frozen=True, slots=True)
class Batching:
    """How rows become micro-batches.

    Attributes:
        rows: rows in an optimizer step.
        micro_batches: micro-batches of a step on each process; fewer where a last step has too few rows.
        packed: whether a micro-batch holds its rows behind one another, or padded side by side.
        seed: orders the rows, anew in each epoch.
        processes: how many processes share a step.
    """

    rows: int
    micro_batches: int
    packed: bool
    seed: int
    processes: int = 1


def spread(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Positions in ``lengths``, in ``parts`` groups of about equal sums; longest first, to the emptiest.

    The largest sum is at most 4/3 of the best possible one (Graham, 1969). Groups are never empty where there
    are enough rows.
    """
    groups: list[list[int]] = [[] for _ in range(parts)]
    heap = [(0, number) for number in range(parts)]
    for position in sorted(range(len(lengths)), key=lambda p: (-lengths[p], p)):
        size, number = heapq.heappop(heap)
        groups[number].append(position)
        heapq.heappush(heap, (size + lengths[position], number))
    return groups


def _side_by_side(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Positions in groups of about equal numbers; rows of like length together waste least padding."""
    order = sorted(range(len(lengths)), key=lambda p: (lengths[p], p))
    bounds = [len(order) * number // parts for number in range(parts + 1)]
    return [order[low:high] for low, high in pairwise(bounds)]


def share_of(micro_batches: Sequence[list[Index]], process: int, processes: int) -> list[list[Index]]:
    """One process's micro-batches; each has equally many, an idle one rows that have no loss."""
    mine = list(micro_batches[process::processes])
    if process >= len(micro_batches) % processes > 0:
        mine.append([~row for row in micro_batches[0]])
    return mine


class MicroBatches:
    """A batch sampler: this process's micro-batches of one epoch, step after step.

    Processes share each step: all have equally many micro-batches of it, and none has one of another step.

    Args:
        lengths: tokens of each row.
        batching: how.
        process: this one's number.
    """

    def __init__(self, lengths: np.ndarray, batching: Batching, process: int = 0) -> None:
        self._lengths = lengths
        self._batching = batching
        self._process = process
        self._epoch = 0

    @property
    def packed(self) -> bool:
        """Whether the rows of a micro-batch lie behind one another."""
        return self._batching.packed

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the rows."""
        self._epoch = epoch

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-len(self._lengths) // self._batching.rows)

    def __len__(self) -> int:
        full, rest = divmod(len(self._lengths), self._batching.rows)
        return full * self._count(self._batching.rows) + (self._count(rest) if rest else 0)

    def __iter__(self) -> Iterator[list[Index]]:
        order, rows = self._order(self._epoch), self._batching.rows
        for start in range(0, len(order), rows):
            micro_batches = self._micro_batches_of(order[start : start + rows])
            yield from micro_batches[self._process :: self._batching.processes]

    def rows_of(self, step: int) -> list[int]:
        """The rows of an optimizer step of the whole training, counted from 0."""
        epoch, number = divmod(step, self.steps)
        start = number * self._batching.rows
        return sorted(int(row) for row in self._order(epoch)[start : start + self._batching.rows])

    def sizes(self, steps: int) -> np.ndarray:
        """Tokens of each micro-batch of the first steps of the first epoch, padding included."""
        order, rows = self._order(0), self._batching.rows
        starts = range(0, min(len(order), steps * rows), rows)
        batches = (order[start : start + rows] for start in starts)
        return np.array([self._tokens(one) for batch in batches for one in self._micro_batches_of(batch)])

    def longest(self) -> int:
        """The largest of the ``sizes`` of all steps, found for all of them together."""
        lengths, rows = self._lengths[self._order(0)], self._batching.rows
        whole = len(lengths) // rows * rows
        steps = (lengths[:whole].reshape(-1, rows), lengths[whole:].reshape(1, -1))
        return max(self._longest_of(some) for some in steps if some.size)

    def of_size(self, tokens: int) -> list[Index]:
        """The longest rows, as many as make a micro-batch of this size; at least one."""
        order = np.argsort(-self._lengths, kind="stable")
        if not self._batching.packed:
            return [int(row) for row in order[: max(1, tokens // int(self._lengths[order[0]]))]]
        fitting = int(np.searchsorted(np.cumsum(self._lengths[order]), tokens, side="right"))
        return [int(row) for row in order[: max(1, fitting)]]

    def _longest_of(self, steps: np.ndarray) -> int:
        """As ``longest``, for steps of equally many rows; ``steps`` has their lengths, [steps, rows]."""
        rows = steps.shape[1]
        parts = self._count(rows) * self._batching.processes
        if parts >= rows:
            return int(steps.max())  # each row is alone
        rising = np.sort(steps, axis=1)
        if not self._batching.packed:
            bounds = np.arange(parts + 1) * rows // parts
            return int((np.diff(bounds) * rising[:, bounds[1:] - 1]).max())
        # As ``spread``: the longest rows begin the groups, and each other goes to the emptiest.
        falling = np.ascontiguousarray(rising.T[::-1])
        sums = np.ascontiguousarray(falling[:parts].T)
        every = np.arange(len(sums))
        for lengths in falling[parts:]:
            sums[every, sums.argmin(axis=1)] += lengths
        return int(sums.max())

    def _tokens(self, rows: list[Index]) -> int:
        lengths = self._lengths_of(rows)
        return sum(lengths) if self._batching.packed else len(lengths) * max(lengths)

    def _lengths_of(self, rows: list[Index]) -> list[int]:
        return [int(self._lengths[max(row, ~row)]) for row in rows]

    def _count(self, rows: int) -> int:
        """Micro-batches of a step, on each process."""
        return max(1, min(self._batching.micro_batches, rows // self._batching.processes))

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._batching.seed, epoch]).permutation(len(self._lengths))

    def _micro_batches_of(self, step: np.ndarray) -> list[list[Index]]:
        rows = [int(row) for row in step]
        parts = self._count(len(rows)) * self._batching.processes
        # A last step may have fewer rows than processes. Each idle one repeats a row without its loss.
        rows += [~rows[0]] * max(0, parts - len(rows))
        group = spread if self._batching.packed else _side_by_side
        return [[rows[at] for at in places] for places in group(self._lengths_of(rows), parts)]
