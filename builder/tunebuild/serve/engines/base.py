"""The engine interface: token ids and sampling settings in, token ids and log-probabilities out.

An engine knows neither text nor templates. The one exception is a :class:`Constraint`, whose text speaks of
characters: an engine compiles it against the tokenizer file of its :class:`EngineSetup`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

_NO_BIAS: Mapping[int, float] = MappingProxyType({})

#: Below this, sampling is greedy: dividing logits by less overflows.
GREEDY_BELOW = 1e-5


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. Penalties and bias apply before the temperature, as OpenAI and vLLM do.

    Attributes:
        temperature: below :data:`GREEDY_BELOW` takes the likeliest token.
        top_p: choose among the likeliest tokens that together have this probability; the likeliest always
            stays.
        top_k: choose among this many likeliest tokens; 0 is all.
        min_p: drop tokens with less than this share of the likeliest token's probability.
        presence_penalty: subtracted once from the logit of each token of the answer so far.
        frequency_penalty: subtracted from it as many times as the token was made.
        repetition_penalty: divides (positive) or multiplies (negative) logits of tokens of prompt and answer.
        logit_bias: added to the logits of these ids.
        seed: makes a sampled answer repeatable; ``None`` draws one.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: _NO_BIAS)
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature < GREEDY_BELOW


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the text of an answer must match.

    Attributes:
        kind: ``json_schema`` (the text is a JSON Schema) or ``lark`` (a grammar in llguidance's dialect of
            Lark, which vLLM's ``guidance`` backend reads, too).
        text: the schema or the grammar. The API has validated it.
    """

    kind: Literal["json_schema", "lark"]
    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """What an engine is asked for.

    Attributes:
        prompt: token ids, at least one.
        max_tokens: the most tokens to make, at least one.
        stop_ids: ids that end the answer; the one that does is not part of it.
        sampling: how to choose tokens.
        logprobs: ``None`` for none; else each token has its log-probability and those of this many likeliest
            tokens. They are of the model's own distribution, before penalties, bias and temperature.
        constraint: what the answer's text must match; stop ids are possible only where it is complete.
        request_id: for logs.
        whole: nobody reads it before its end, so an engine may hand its tokens out together.
    """

    prompt: list[int]
    max_tokens: int
    stop_ids: frozenset[int]
    sampling: Sampling = field(default_factory=Sampling)
    logprobs: int | None = None
    constraint: Constraint | None = None
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer.

    Attributes:
        id: its id.
        logprob: its log-probability, where asked for.
        top: ids and log-probabilities of the likeliest tokens at its place, likeliest first.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


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


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """What an engine is made of. Making one is cheap; :meth:`Engine.start` loads.

    Attributes:
        model: directory with configuration and safetensors.
        adapter: an adapter in PEFT's format that is put on top, if any.
        adapter_name: its name; holds its digest, so that no engine takes it for another.
        tokenizer: the ``tokenizer.json`` that prompts are encoded with, for constraints.
        device: ``cpu`` or ``cuda``.
        dtype: ``auto`` is bfloat16 where the hardware has it, else float32.
        context: longest prompt and answer together, in tokens.
        concurrency: answers at the same time; ``None`` is as many as memory holds.
    """

    model: Path
    adapter: Path | None
    adapter_name: str
    tokenizer: Path
    device: Literal["cpu", "cuda"]
    dtype: Literal["auto", "bfloat16", "float32"]
    context: int
    concurrency: int | None = None


class Engine(Protocol):
    """Runs a model. A request's failure ends that request alone."""

    def start(self) -> None:
        """Load the model; blocks until it can answer. Called in a thread. Raises whatever is wrong."""

    def submit(self, generation: Generation) -> None:
        """Take an answer. Called on the event loop; returns at once and raises nothing about the request."""

    def stop(self) -> None:
        """End the engine; running answers finish as cancelled. Safe to call twice, or before a start."""

    async def score(self, rows: Sequence[list[int]]) -> list[list[float]]:
        """Log-probabilities of each row's tokens after the first, given those before them.

        Args:
            rows: token ids, each at least two and fewer than the context; asked before any answer.
        """

    @property
    def dtype(self) -> str:
        """Precision of the weights in memory, such as ``bfloat16``; valid once started."""

    @property
    def healthy(self) -> bool:
        """Whether it can still answer."""

    @property
    def capacity(self) -> int:
        """Answers at the same time; valid once started."""

    @property
    def running(self) -> int:
        """Answers that are being computed now, without those that wait."""
