"""The engine interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_p: choose among the likeliest tokens that together have this probability.
        seed: makes a sampled answer repeatable; ``None`` draws one.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What an engine is asked for: prompt ids, the most tokens to make, and where to stop."""

    prompt: list[int]
    max_tokens: int
    stop_ids: frozenset[int]
    sampling: Sampling


class EngineFailed(Exception):
    """The engine could not finish an answer; the text says why."""


class Generation:
    """One running answer: an asynchronous stream of token ids, without the stop token.

    The engine's thread feeds it; the event loop that made it reads it.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.finish: Finish | None = None
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[int | Finish | EngineFailed] = asyncio.Queue()

    def feed(self, item: int | Finish | EngineFailed) -> None:
        """Called by the engine's thread: a token, or the end."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def cancel(self) -> None:
        """Nobody reads any more; the engine drops it at its next step."""
        self.cancelled = True

    async def __aiter__(self) -> AsyncIterator[int]:
        """Token ids as they are made; afterwards ``finish`` is set.

        Raises:
            EngineFailed: the engine gave up on it.
        """
        while True:
            item = await self._queue.get()
            if isinstance(item, EngineFailed):
                raise item
            if isinstance(item, Finish):
                self.finish = item
                return
            yield item


class Engine(Protocol):
    """Runs a model."""

    def start(self) -> None:
        """Load the model; blocks until it can answer. Raises whatever is wrong with it."""

    def submit(self, generation: Generation) -> None:
        """Queue an answer. Called on the event loop; returns at once."""

    def stop(self) -> None:
        """End the engine; running answers finish as cancelled."""

    @property
    def healthy(self) -> bool:
        """Whether it can still answer."""
