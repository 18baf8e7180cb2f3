"""The trained questions and the prompt contract of a build, out of a bundle's files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tunebuild.errors import fail
from tunebuild.prompt import Message, Renderer, check_golden, load_golden, load_prompt


@dataclass(frozen=True, slots=True)
class Check:
    """A trained question and its answer.

    Attributes:
        messages: the conversation up to the answer.
        expected: the answer's text.
        prompt_tokens: length of the prompt that the model must be fed.
        reasoning: what the model reasons before it, which the endpoint gives apart from it.
        calls: tool calls of the answer.
    """

    messages: list[Message]
    expected: str
    prompt_tokens: int
    reasoning: str = ""
    calls: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Contract:
    """What an endpoint must keep to: the prompt, and the trained questions."""

    renderer: Renderer
    checks: tuple[Check, ...]
    vectors: int


def read_contract(prompt: Path) -> Contract:
    """Read a bundle's prompt directory and reproduce its golden vectors.

    Args:
        prompt: the directory, with ``golden.json`` and ``checks.jsonl``.

    Raises:
        TunebuildError: a file was changed, or a vector does not reproduce; names the first token.
    """
    renderer = load_prompt(prompt)
    vectors = load_golden(prompt / "golden.json")
    if mismatch := check_golden(renderer, vectors):
        raise fail(
            "prompt-parity",
            str(mismatch),
            "this image would be asked another prompt than it was trained on; rebuild it",
        )
    lines = (prompt / "checks.jsonl").read_text("utf-8").splitlines()
    return Contract(renderer, tuple(_checks(renderer, lines)), len(vectors))


def _checks(renderer: Renderer, lines: Iterable[str]) -> Iterable[Check]:
    for line in lines:
        row = json.loads(line)
        tokens = len(renderer.prompt_ids(row["messages"]))
        calls, reasoning = tuple(row.get("calls", ())), row.get("reasoning", "")
        yield Check(row["messages"], row["expected"], tokens, reasoning, calls)
