"""Reasoning apart from the answer, in whole and in streamed messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tunebuild.prompt import Renderer
from tunebuild.prompt.reasoning_stream import ReasoningStream
from tunebuild.serve.api.tools import MessageParts, ToolUse
from tunebuild.serve.engines.request import Constraint, Finish


class ReasoningParts:
    """An answer as deltas of a message: reasoning, and what comes behind it.

    Args:
        stream: parts the text of the answer.
        rest: splits what is said further; ``None`` where it is text alone.
    """

    def __init__(self, stream: ReasoningStream, rest: MessageParts | None) -> None:
        self._stream, self._rest = stream, rest

    def push(self, text: str) -> list[dict[str, Any]]:
        """Deltas of a piece of text."""
        return self._deltas(*self._stream.push(text))

    def flush(self) -> list[dict[str, Any]]:
        """Deltas of what was held back."""
        return [*self._deltas(*self._stream.flush()), *(self._rest.flush() if self._rest else ())]

    def finish(self, finish: Finish | None) -> str | None:
        """Why the answer ended, as clients are told."""
        return self._rest.finish(finish) if self._rest else finish

    def _deltas(self, reasoning: str, text: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"reasoning_content": reasoning}] if reasoning else []
        if text:
            found += self._rest.push(text) if self._rest else [{"content": text}]
        return found


def message_parts(
    renderer: Renderer, prompt: Sequence[int], use: ToolUse
) -> ReasoningParts | MessageParts | None:
    """Splits the answer to a chat's prompt; ``None`` where it is text alone."""
    stream = renderer.answers.stream(prompt)
    return use.parts() if stream is None else ReasoningParts(stream, use.parts())


def behind_reasoning(
    renderer: Renderer, prompt: Sequence[int], constraint: Constraint | None
) -> Constraint | None:
    """A constraint on the JSON of an answer, behind what the answer begins with where it has no reasoning."""
    if constraint is None or constraint.kind != "json_schema":
        return constraint
    before = renderer.answers.before_plain(prompt)
    if not before:
        return constraint
    parts = renderer.tokenizer.added_tokens(before)
    literals = [f"<[{p}]>" if isinstance(p, int) else json.dumps(p, ensure_ascii=False) for p in parts]
    rules = ("%llguidance {}", f"start: {' '.join(literals)} answer", f"answer: %json {constraint.text}")
    return Constraint("lark", "\n".join(rules) + "\n")
