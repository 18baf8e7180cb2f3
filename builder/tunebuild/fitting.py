"""Whether what a spec asks for fits the positions of its base model; beyond them a model writes nonsense."""

from __future__ import annotations

import json

from tunebuild.errors import fail
from tunebuild.pipeline import Pipeline
from tunebuild.store import Tree


def check_context(pipeline: Pipeline) -> None:
    """Refuse a context that the spec names and the base has no positions for.

    Raises:
        TunebuildError: ``positions``.
    """
    positions, context = pipeline.positions, pipeline.context
    if positions is not None and context > positions:
        raise fail(
            "positions",
            f"the base has positions for {positions} tokens, not for a context of {context}",
            f"lower it to {positions}, or leave it out",
            path="serving.limits.context",
        )


def check_rows(pipeline: Pipeline, data: Tree) -> None:
    """Refuse rows that the base has no positions for.

    Args:
        data: the data stage's output.

    Raises:
        TunebuildError: ``positions``, with the longest row.
    """
    positions = pipeline.positions
    if positions is None or pipeline.spec.tuning.max_length <= positions:
        return
    longest = json.loads(data.path("stats.json").read_text("utf-8"))["longest"]
    if longest["tokens"] > positions:
        source = pipeline.data().sources[longest["source"]]
        raise fail(
            "positions",
            f"{source.shown}:{longest['line']} has {longest['tokens']} tokens, and the base has "
            f"positions for {positions}",
            f"lower it to {positions}; data.on_long says what becomes of longer rows",
            path="tuning.max_length",
        )
