"""What an evaluation asks besides the held-out rows, and where it finds which source a row stands in."""

from __future__ import annotations

from tunebuild import resources

SOURCES = "eval_sources.json"
"""Which source each held-out row stands in, by number; written by the data stage."""


def general_prompts() -> list[str]:
    """The shipped prompts of the regression set."""
    return resources.path("templates", "evaluation", "regression.txt").read_text("utf-8").splitlines()
