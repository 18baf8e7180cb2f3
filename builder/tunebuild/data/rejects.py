"""Keeps account of rows that are not used: each in ``rejects.jsonl``, counted by its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TextIO

from tunebuild.data.privacy import mask
from tunebuild.data.rows import Reject
from tunebuild.printable import printable_json

#: Reasons that the spec asked for. Such rows are listed, and are no sign that the data is bad.
ASKED_FOR = frozenset(
    ("filtered", "duplicate", "near-duplicate", "secret", "personal", "leaked", "not-sampled", "too-long")
)

#: Reasons that lie in the template rather than in a row.
_BY_TEMPLATE = ("calls-not-printed", "prompt-not-prefix", "no-end-of-turn", "template-refused")

_SHOWN = 10


class Rejects:
    """Writes rejects as they come; in memory are only counts and the first that nobody asked for."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.counts: Counter[str] = Counter()
        self.first_bad: list[Reject] = []

    def add(self, rejects: Iterable[Reject]) -> None:
        """Write and count them."""
        for raw in rejects:
            reject = replace(raw, reason=mask(raw.reason))
            self._file.write(printable_json(asdict(reject)) + "\n")
            self.counts[reject.code] += 1
            if reject.code not in ASKED_FOR and len(self.first_bad) < _SHOWN:
                self.first_bad.append(reject)

    @property
    def bad(self) -> int:
        """How many were rejected for reasons that the spec did not ask for."""
        return sum(count for code, count in self.counts.items() if code not in ASKED_FOR)

    @property
    def by_template(self) -> int:
        """How many were rejected for what the template does with them."""
        return sum(self.counts[code] for code in _BY_TEMPLATE)
