"""Columns that a spec names and no row of a file has: slips that would else show in the model alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunebuild.data.formats import TELLING
from tunebuild.data.rows import RowSource
from tunebuild.errors import fail


class Headings:
    """Watches the rows of a file for the columns that are asked for."""

    def __init__(self, source: RowSource) -> None:
        self._shown = source.shown
        self._mapped = set(source.columns.values())
        self._chosen_by = set(source.where)
        # By the format's name for them; `auto` is told by columns that are there.
        self._columns, self._format = source.columns, source.format
        self._needed = set(TELLING.get(source.format, ()))
        self._first: tuple[str, ...] | None = None

    def see(self, row: Mapping[str, Any]) -> None:
        """Take note of a row, used or not."""
        if self._first is None:
            self._first = tuple(map(str, row))
        if self._mapped:
            self._mapped -= {name for name in self._mapped if row.get(name) not in (None, "")}
        if self._chosen_by:
            self._chosen_by -= row.keys()
        if self._needed:
            self._needed -= {ours for ours in self._needed if ours in row or self._columns.get(ours) in row}

    def check(self, *, whole: bool) -> None:
        """Look back on the file.

        Args:
            whole: whether all of it was read; what a part does not have may stand further on, but if that is
                a column that the format needs, no row of the part can be used.

        Raises:
            TunebuildError: ``no-column``.
        """
        if self._first is None:
            return
        if self._mapped and whole:
            message = f"anything in column '{min(self._mapped)}'"
            hint = "fix data.train[].columns, or the file"
        elif self._needed:
            needed = [ours for ours in TELLING[self._format] if ours in self._needed]
            names = " or ".join(f"'{self._columns.get(ours, ours)}'" for ours in needed)
            message = f"{names}, as format '{self._format}' wants"
            hint = f"say what they are called: columns: {{{', '.join(f'{ours}: ...' for ours in needed)}}}"
        elif self._chosen_by and whole:
            message = f"the column '{min(self._chosen_by)}' that 'where' chooses by"
            hint = "fix its name, or leave it out"
        else:
            return
        message = f"{self._shown}: no row has {message}; the columns are: {', '.join(self._first)}"
        raise fail("no-column", message, hint, path="data.train")
