"""Waiting for what comes of a request's answers, or for its client to hang up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.types import Receive

from tunebuild.serve.bell import Bell
from tunebuild.serve.engines.generation import Generation


class Arrivals:
    """Waits for what comes next of the answers to one request.

    Args:
        generations: the answers, of one event loop.
        bell: wakes for tokens; without one, only ends of answers do.

    Attributes:
        abandoned: whether the client has hung up.
    """

    def __init__(self, generations: Sequence[Generation], bell: Bell | None) -> None:
        self._generations, self._bell = generations, bell
        self._fresh = True  # what came before anybody listened
        self._waiter: asyncio.Future[None] | None = None
        self.abandoned = False
        for generation in generations:
            generation.listen(self._arrived)

    @asynccontextmanager
    async def wanted(self, receive: Receive) -> AsyncIterator[None]:
        """While the block runs, watch whether the client hangs up; behind it nobody reads the answers."""

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.abandoned = True
            self._wake()

        watching = asyncio.ensure_future(watch())
        try:
            yield
        finally:
            watching.cancel()
            for generation in self._generations:
                generation.cancel()

    async def wait(self) -> None:
        """Until something has come since the last call, or the client has hung up."""
        if not (self._fresh or self.abandoned):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._fresh = False

    def _arrived(self, over: bool) -> None:
        if over:
            self._wake()
        elif self._bell is not None and not self._fresh:
            self._fresh = True
            if self._waiter is not None:
                self._bell.soon(self._waiter)

    def _wake(self) -> None:
        self._fresh = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
