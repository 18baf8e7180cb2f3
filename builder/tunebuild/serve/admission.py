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


class Places:
    """The places of one request; more are taken for the further answers that it asks for."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.taken = 0

    def take(self, count: int = 1) -> None:
        """Take more places.

        Raises:
            Full: that many are not free; none of them is taken.
        """
        self._admission.claim(count)
        self.taken += count


class Admission:
    """Counts answers inside; belongs to one event loop.

    A place is held by a ``with`` block around all of a request's handling and by nothing else, so whatever
    ends the handling (an answer, an error, a client that hangs up, a cancelled task) frees it.

    Args:
        concurrency: answers that are computed at the same time.
        queue: answers that may wait beside those.
    """

    def __init__(self, concurrency: int, queue: int) -> None:
        self.concurrency = concurrency
        self._queue = queue
        self._seconds = 1.0  # how long an answer takes, as a moving average
        self.inside = 0

    @property
    def places(self) -> int:
        """Answers that there is room for."""
        return self.concurrency + self._queue

    def claim(self, count: int) -> None:
        """Count ``count`` more; only :class:`Places` calls this, which gives them back.

        Raises:
            Full: that many are not free.
        """
        if self.inside + count > self.places:
            waiting = max(0, self.inside + count - self.concurrency)
            rounds = 1 + waiting / self.concurrency
            raise Full(max(1, round(rounds * self._seconds)))
        self.inside += count

    @contextmanager
    def enter(self) -> Iterator[Places]:
        """Take a place until the block ends.

        Raises:
            Full: none is free.
        """
        places = Places(self)
        places.take()
        started = time.monotonic()
        try:
            yield places
        finally:
            self.inside -= places.taken
            self._seconds += 0.2 * (time.monotonic() - started - self._seconds)
