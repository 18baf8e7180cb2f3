"""Tokenized rows for training tests."""

from __future__ import annotations

from pathlib import Path

from tunebuild.data.prompt_source import build_renderer
from tunebuild.data.tokenized import write_examples
from tunebuild.prompt import Renderer
from tunebuild.spec.model import PromptSpec

PAIRS = [(f"What is item {i}?", f"Item {i} is the {word} one.") for i, word in enumerate(
    ["red", "blue", "green", "small", "large", "old", "new", "round", "square", "flat"]
)]  # fmt: skip


def write_rows(base: Path, directory: Path, *, held_out: bool = False, count: int = len(PAIRS)) -> Renderer:
    """Write ``train.arrow`` (and ``eval.arrow``) for a base; returns the renderer."""
    directory.mkdir(exist_ok=True)
    renderer = build_renderer(PromptSpec(), base, base)
    examples = [
        renderer.example([{"role": "user", "content": q}, {"role": "assistant", "content": a}])
        for q, a in PAIRS[:count]
    ]
    write_examples(directory / "train.arrow", examples)
    if held_out:
        write_examples(directory / "eval.arrow", examples[:3])
    return renderer
