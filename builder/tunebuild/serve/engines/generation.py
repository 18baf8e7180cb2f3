"""One answer on its way from the engine that makes it to whoever reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable

from tunebuild.serve.engines.request import Finish, Request, Token


class EngineFailed(Exception):
    """The engine could not finish an answer; the text says why."""


class Drained(Exception):
    """The server ended before the answer did."""


#: How an answer ends.
End = Finish | EngineFailed | Drained
Item = Token | End


class Generation:
    """One answer: tokens that an engine makes and somebody reads. Made and read on one event loop.

    An engine feeds any number of :class:`Token`, then one :class:`Finish` or :class:`EngineFailed`. What
    comes after that, or after a cancel, is dropped. Tokens are kept until they are taken: however many were
    made meanwhile are taken at once, so a reader that is behind costs no more than one that is not.

    Args:
        request: what is asked for.

    Attributes:
        finish: why it ended, once all of it has been taken.
        cancelled: whether nobody reads any more.
        first_at: when its first token was made, of ``time.monotonic()``.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.finish: Finish | None = None
        self.cancelled = False
        self.first_at: float | None = None
        self._over = False
        self._tokens: list[Token] = []
        self._end: End | None = None
        self._loop = asyncio.get_running_loop()
        self._listener: Callable[[bool], None] = lambda _: None
        self._on_cancel: Callable[[Generation], None] | None = None
        self._on_end: Callable[[Generation], None] | None = None

    def feed(self, item: Item) -> None:
        """A token, or the end; from any thread."""
        deliver([(self, item)])

    def put(self, item: Item) -> None:
        """A token, or the end; on the event loop of the answer."""
        if self._over:
            return
        if isinstance(item, Token):
            if self.first_at is None:
                self.first_at = time.monotonic()
            self._tokens.append(item)
        else:
            self._over, self._end = True, item
        self._listener(self._over)

    def listen(self, arrived: Callable[[bool], None]) -> None:
        """Have ``arrived`` called, on the event loop, when there is more to take; true if it is the end."""
        self._listener = arrived

    def take(self) -> tuple[list[Token], End | None]:
        """Tokens since the last call; and how the answer ended, if those were the last."""
        tokens, self._tokens = self._tokens, []
        if isinstance(self._end, Finish):
            self.finish = self._end
        return tokens, self._end

    def on_cancel(self, abort: Callable[[Generation], None]) -> None:
        """Have ``abort`` called, on the event loop, once nobody reads any more."""
        self._on_cancel = abort

    def on_end(self, ended: Callable[[Generation], None]) -> None:
        """Have ``ended`` called, on the event loop, when its reader is done with it, however that came."""
        self._on_end = ended

    def drained(self) -> None:
        """The server ends before it does: whoever reads it is told, and the engine drops it."""
        self.put(Drained("the server is shutting down, and the answer took longer than it waits"))
        self._over = False
        self.cancel()

    def cancel(self) -> None:
        """Nobody reads any more. Does nothing to an answer that is complete, or at a second call."""
        if self.cancelled:
            return
        self.cancelled = True
        if self._on_end is not None:
            self._on_end(self)
        if not self._over and self._on_cancel is not None:
            self._on_cancel(self)
        self._over = True

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that reads it."""
        return self._loop

    async def __aiter__(self) -> AsyncIterator[Token]:
        """Tokens as they are made; afterwards ``finish`` is set.

        Raises:
            EngineFailed: the engine gave up on it.
            Drained: the server ends.
        """
        arrived = asyncio.Event()
        self.listen(lambda _: arrived.set())
        while True:
            tokens, end = self.take()
            for token in tokens:
                yield token
            if isinstance(end, Exception):
                raise end
            if end is not None:
                return
            await arrived.wait()
            arrived.clear()


def deliver(items: Iterable[tuple[Generation, Item]]) -> None:
    """Feed many answers from another thread, waking each event loop once."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Generation, Item]]] = {}
    for generation, item in items:
        loops.setdefault(generation.loop, []).append((generation, item))
    for loop, batch in loops.items():
        try:
            loop.call_soon_threadsafe(_put_all, batch)
        except RuntimeError:
            if not loop.is_closed():  # one that has been closed has no readers
                raise


def _put_all(batch: list[tuple[Generation, Item]]) -> None:
    for generation, item in batch:
        generation.put(item)
