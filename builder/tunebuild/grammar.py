"""Numbers and lists in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """``1 row``, ``2 rows``, ``1,000 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(first: Sequence[object], count: int) -> str:
    """The first of ``count`` things, each on a line below the sentence, and how many more there are."""
    more = [f"and {count - len(first):,} more"] if count > len(first) else []
    return "".join(f"\n  {line}" for line in [*first, *more])
