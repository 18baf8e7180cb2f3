"""Columns that a spec names and no row of a file has: slips that would else show in the model alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunebuild.data.rows import RowSource
from tunebuild.errors import fail


class Headings:
    """Watches the rows of a file for the columns that are asked for."""

    def __init__(self, source: RowSource) -> None:
        self._shown = source.shown
        self._mapped = set(source.columns.values())
        self._chosen_by = set(source.where)
        self._first: tuple[str, ...] | None = None

    def see(self, row: Mapping[str, Any]) -> None:
        """Take note of a row, used or not."""
        if self._first is None:
            self._first = tuple(map(str, row))
        if self._mapped:
            self._mapped -= {name for name in self._mapped if row.get(name) not in (None, "")}
        if self._chosen_by:
            self._chosen_by -= row.keys()

    def check(self, *, whole: bool) -> None:
        """Look back on the file.

        Args:
            whole: whether all of it was read; what a part does not have may stand further on.

        Raises:
            TunebuildError: ``no-column``.
        """
        if self._first is None or not whole:
            return
        if self._mapped:
            message = f"{self._shown}: no row has anything in column '{min(self._mapped)}'"
            raise fail("no-column", message, "mend data.train[].columns, or the file", path="data.train")
        if self._chosen_by:
            raise fail(
                "no-column",
                f"{self._shown}: no row has the column '{min(self._chosen_by)}' that 'where' chooses by",
                f"name one that is there: {', '.join(self._first)}",
                path="data.train",
            )
