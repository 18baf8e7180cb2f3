"""Turns a stream of tokens into a stream of text, watching for stop texts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from tunebuild.prompt import Detokenizer
from tunebuild.serve.api.tools import MessageParts
from tunebuild.serve.engines.base import Finish, Generation, Token


class StopTexts:
    """Finds the first stop text in text that arrives in pieces; holds back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """Take a piece; the text that is safe to hand out. Sets ``hit`` at a stop text, and drops it."""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.hit = True
            return self._held[: min(found)]
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out

    def flush(self) -> str:
        """What was held back and turned out to be ordinary text."""
        return "" if self.hit else self._held


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that has become certain.

    Attributes:
        text: it.
        tokens: tokens since the piece before.
        offset: characters of the answer before it.
    """

    text: str
    tokens: tuple[Token, ...]
    offset: int


class Answer:
    """One answer as text.

    Attributes:
        generation: the running answer.
        tokens: tokens made so far.
        finish: why it ended, once it has.
        parts: splits its text into what a message is made of; ``None`` where it is text alone.
    """

    def __init__(
        self,
        generation: Generation,
        detokenizer: Detokenizer,
        stops: Sequence[str],
        on_first: Callable[[float], None] = lambda _: None,
        parts: MessageParts | None = None,
    ) -> None:
        self.generation = generation
        self.parts = parts
        self.tokens: list[Token] = []
        self.finish: Finish | None = None
        self._detokenizer = detokenizer
        self._stops = StopTexts(stops)
        self._on_first = on_first

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.generation.request.prompt)

    @property
    def completion_tokens(self) -> int:
        """Tokens made so far."""
        return len(self.tokens)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Text as it becomes certain. Leaving early cancels the answer."""
        started = time.monotonic()
        handed_out = characters = 0
        try:
            async for token in self.generation:
                if not self.tokens:
                    self._on_first(time.monotonic() - started)
                self.tokens.append(token)
                if text := self._stops.push(self._detokenizer.push(token.id)):
                    yield Piece(text, tuple(self.tokens[handed_out:]), characters)
                    handed_out, characters = len(self.tokens), characters + len(text)
                if self._stops.hit:
                    self.finish = Finish.STOP
                    return
            self.finish = self.generation.finish
            rest = self._stops.push(self._detokenizer.flush()) + self._stops.flush()
            if rest:
                yield Piece(rest, tuple(self.tokens[handed_out:]), characters)
        finally:
            self.generation.cancel()


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a start of ``stop``, but not all of it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
