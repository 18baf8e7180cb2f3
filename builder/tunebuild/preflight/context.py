"""Whether a context and rows fit the positions of the base model; beyond them a model writes nonsense."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tunebuild.errors import fail
from tunebuild.store import Tree


def check_context(positions: int | None, context: int) -> None:
    """Refuse a context that the spec names and the base has no positions for.

    Args:
        positions: tokens that the base has positions for; ``None`` if it names no end.
        context: longest prompt and answer together, in tokens.

    Raises:
        TunebuildError: ``positions``.
    """
    if positions is not None and context > positions:
        raise fail(
            "positions",
            f"the base has positions for {positions} tokens, not for a context of {context}",
            f"lower it to {positions}, or leave it out",
            path="serving.limits.context",
        )


def check_rows(positions: int | None, max_length: int, data: Tree, sources: Sequence[str]) -> None:
    """Refuse rows that the base has no positions for.

    Args:
        positions: as above.
        max_length: the longest row that the spec allows, in tokens.
        data: the data stage's output.
        sources: names of the files that rows come from, as users know them.

    Raises:
        TunebuildError: ``positions``, with the longest row.
    """
    if positions is None or max_length <= positions:
        return
    longest = json.loads(data.path("stats.json").read_text("utf-8"))["longest"]
    if longest["tokens"] > positions:
        raise fail(
            "positions",
            f"{sources[longest['source']]}:{longest['line']} has {longest['tokens']} tokens, and the base "
            f"has positions for {positions}",
            f"lower it to {positions}; data.on_long says what becomes of longer rows",
            path="tuning.max_length",
        )
