"""Turns a stream of tokens into a stream of text, watching for stop texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tunebuild.prompt import Detokenizer
from tunebuild.serve.engines.generation import Generation
from tunebuild.serve.engines.request import Finish, Token


class StopTexts:
    """Finds the first stop text in text that arrives in pieces; holds back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.hit = False

    def __bool__(self) -> bool:
        return bool(self._stops)

    def push(self, text: str) -> str:
        """Take a piece; the text that is safe to hand out. Sets ``hit`` at a stop text, and drops it."""
        if not self._stops:
            return text
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


class Parts(Protocol):
    """Splits the text of one answer into what a message is made of."""

    def push(self, text: str) -> list[dict[str, Any]]:
        """Deltas of a piece of text."""

    def flush(self) -> list[dict[str, Any]]:
        """Deltas of what was held back."""

    def finish(self, finish: Finish | None) -> str | None:
        """Why the answer ended, as clients are told."""


class Answer:
    """One answer as text.

    Attributes:
        generation: the running answer.
        tokens: tokens made so far.
        finish: why it ended, once it has.
        failure: what broke it off.
        parts: splits its text into what a message is made of; ``None`` where it is text alone.
    """

    def __init__(
        self,
        generation: Generation,
        detokenizer: Detokenizer,
        stops: Sequence[str],
        on_first: Callable[[float], None] = lambda _: None,
        parts: Parts | None = None,
    ) -> None:
        self.generation = generation
        self.parts = parts
        self.tokens: list[Token] = []
        self.finish: Finish | None = None
        self.failure: Exception | None = None
        self._detokenizer = detokenizer
        self._stops = StopTexts(stops)
        self._handed_out = self._characters = 0
        self._started, self._on_first = time.monotonic(), on_first

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.generation.request.prompt)

    @property
    def completion_tokens(self) -> int:
        """Tokens made so far."""
        return len(self.tokens)

    @property
    def watched(self) -> bool:
        """Whether its text has to be looked at while it is made."""
        return bool(self._stops)

    @property
    def over(self) -> bool:
        """Whether no more comes."""
        return self.finish is not None or self.failure is not None

    def take(self) -> Piece | None:
        """Text that has become certain since the last call. A stop text ends the answer."""
        made, end = self.generation.take()
        if made and not self.tokens and self.generation.first_at is not None:
            self._on_first(self.generation.first_at - self._started)
        text = ""
        for token in made:
            self.tokens.append(token)
            text += self._stops.push(self._detokenizer.push(token.id))
            if self._stops.hit:
                self.finish = Finish.STOP
                self.generation.cancel()
                break
        else:
            if isinstance(end, Exception):
                self.failure = end
            elif end is not None:
                self.finish = end
                text += self._stops.push(self._detokenizer.flush()) + self._stops.flush()
        if not text:
            return None
        piece = Piece(text, tuple(self.tokens[self._handed_out :]), self._characters)
        self._handed_out, self._characters = len(self.tokens), self._characters + len(text)
        return piece


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a start of ``stop``, but not all of it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
