"""Many streams are woken together, and as often as the event loop can afford."""

from __future__ import annotations

import asyncio

_SHARE = 0.25  # of the event loop's time that may go into writing events; the engine needs it, too
_LONGEST = 0.1  # seconds; what comes later than that is seen as a pause


class Bell:
    """Wakes those who wait for tokens, all at once.

    An event costs the same whether it brings one token or five. So after each ring the next one comes no
    earlier than what that ring cost allows: with few streams every token travels alone, and with hundreds,
    or beside a busy process, a few of them share an event. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._next = 0.0
        self._set = False

    def soon(self, waiter: asyncio.Future[None]) -> None:
        """Wake it at the next ring."""
        self._waiting.append(waiter)
        if not self._set:
            self._set = True
            loop = waiter.get_loop()
            if self._next <= loop.time():
                loop.call_soon(self._ring, loop)
            else:
                loop.call_at(self._next, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting, self._set = self._waiting, [], False
        started = loop.time()
        self._next = started + _LONGEST  # until it is known what this one costs
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
        # Callbacks run in order: the first of these comes when all have written, the second when the loop
        # has also sent what they wrote.
        loop.call_soon(loop.call_soon, self._rung, loop, started)

    def _rung(self, loop: asyncio.AbstractEventLoop, started: float) -> None:
        cost = loop.time() - started
        self._next = started + min(_LONGEST, cost / _SHARE)
