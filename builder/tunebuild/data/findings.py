"""Keeps account of secrets and personal data in rows: each in ``findings.jsonl``, counted by its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import TextIO

from tunebuild.data.rows import Finding
from tunebuild.errors import fail
from tunebuild.grammar import counted, listed
from tunebuild.printable import printable_json

_SHOWN = 10


class Findings:
    """Writes findings as they come; in memory are only counts and the first that stop the build."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.counts: Counter[str] = Counter()
        self._refused = 0
        self._first: list[Finding] = []

    def add(self, findings: Iterable[Finding]) -> None:
        """Write and count them."""
        for finding in findings:
            self._file.write(printable_json(asdict(finding)) + "\n")
            self.counts[finding.kind] += 1
            if finding.outcome == "refused":
                self._refused += 1
                if len(self._first) < _SHOWN:
                    self._first.append(finding)

    def check(self) -> None:
        """Stop the build where the spec wants none.

        Raises:
            TunebuildError: ``private-data``, with the first of them, one a line, masked.
        """
        if not self._refused:
            return
        policy = "secrets" if any(f.found == "secret" for f in self._first) else "personal"
        raise fail(
            "private-data",
            f"{counted(self._refused, 'piece')} of secret or personal data would be baked into the model"
            f"{listed(self._first, self._refused)}",
            "take them out (and revoke what is secret), or say "
            f"data.privacy: {{{policy}: reject}} to leave such rows out, or report to keep them",
            path=f"data.privacy.{policy}",
        )
