"""Who may enter: a bounded number of requests, counted before any work is done for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Full(Exception):
    """No place is free; ``retry_after`` says when one should be, in whole seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"try again in {retry_after} s")
        self.retry_after = retry_after


class Admission:
    """Counts requests inside; belongs to one event loop.

    Args:
        concurrency: requests that are answered at the same time.
        queue: requests that may wait beside those.
    """

    def __init__(self, concurrency: int, queue: int) -> None:
        self._concurrency = concurrency
        self._places = concurrency + queue
        self._seconds = 1.0  # how long an answer takes, as a moving average
        self.inside = 0

    @property
    def waiting(self) -> int:
        """Requests that wait for a place in the batch."""
        return max(0, self.inside - self._concurrency)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Take a place until the block ends.

        Raises:
            Full: none is free.
        """
        if self.inside >= self._places:
            rounds = 1 + self.waiting / self._concurrency
            raise Full(max(1, round(rounds * self._seconds)))
        self.inside += 1
        started = time.monotonic()
        try:
            yield
        finally:
            self.inside -= 1
            self._seconds += 0.2 * (time.monotonic() - started - self._seconds)
