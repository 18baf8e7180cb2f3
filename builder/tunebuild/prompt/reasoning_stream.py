"""Parts an answer that arrives in pieces into its reasoning and what is said."""

from __future__ import annotations

from typing import Literal

from tunebuild.prompt.reasoning import Reasoning

State = Literal["start", "reasoning", "answer"]


class ReasoningStream:
    """Takes the text of one answer; what it hands out, joined, is what the whole text would give.

    Args:
        reasoning: the markers.
        opened: whether the prompt opens the block.
    """

    def __init__(self, reasoning: Reasoning, *, opened: bool) -> None:
        self._opener, self._closer = reasoning.opener, reasoning.closer
        plain = reasoning.plain.strip()
        self._plain = "" if plain.startswith(self._opener) else plain
        inside, outside = reasoning.closing.split(self._closer)
        self._breaks_inside = "\n" in reasoning.opening + inside
        self._breaks_behind = "\n" in outside
        self._state: State = "reasoning" if opened else "start"
        self._at_start = True
        self._held = ""

    def push(self, text: str) -> tuple[str, str]:
        """Take a piece; the reasoning and the answer that have become certain, either possibly empty."""
        self._held += text
        if self._state == "start":
            self._begin()
        reasoning = self._reason() if self._state == "reasoning" else ""
        return reasoning, self._answer() if self._state == "answer" else ""

    def flush(self) -> tuple[str, str]:
        """What was held back: reasoning if its block never closed, else the answer."""
        held, self._held = self._held, ""
        if self._state == "reasoning":
            return self._without_breaks(held, self._breaks_inside), ""
        return "", self._without_breaks(held, self._state == "answer" and self._breaks_behind)

    def _begin(self) -> None:
        start = self._held.lstrip()
        for marker, state in ((self._opener, "reasoning"), (self._plain, "answer")):
            if marker and start.startswith(marker):
                self._state = "reasoning" if state == "reasoning" else "answer"
                self._held = start.removeprefix(marker)
                return
            if marker and marker.startswith(start):
                return
        # No block: what is said begins here, white space and all.
        self._state, self._at_start = "answer", False

    def _reason(self) -> str:
        text = self._without_breaks(self._held, self._breaks_inside)
        reasoning, closer, behind = text.partition(self._closer)
        if closer:
            self._state, self._at_start, self._held = "answer", True, behind
            return reasoning.rstrip("\n") if self._breaks_inside else reasoning
        keep = _overlap(text, self._closer)
        safe = text[: len(text) - keep]
        if self._breaks_inside:
            safe = safe.rstrip("\n")
        self._held = text[len(safe) :]
        self._at_start = self._at_start and not safe
        return safe

    def _answer(self) -> str:
        text = self._without_breaks(self._held, self._breaks_behind)
        self._held = ""
        self._at_start = self._at_start and not text
        return text

    def _without_breaks(self, text: str, breaks: bool) -> str:
        return text.lstrip("\n") if breaks and self._at_start else text


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of ``text`` that is a start of ``marker``, but not all of it."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
