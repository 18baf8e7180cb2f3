"""Shows how far a build is: bars on a terminal, a line now and then elsewhere. All on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_QUIET_SECONDS = 10.0


class Reporter:
    """One stage after the other, each with its own bar. Implements :class:`tunebuild.store.Progress`."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("  {task.description:<7}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._stage = ""
        self._spoke = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, stage: str) -> None:
        """A new stage starts."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._stage, self._task = stage, self._bars.add_task(stage, total=None, note="")
        self._spoke = time.monotonic()

    def step(self, done: float, total: float, note: str = "") -> None:
        """Move the bar; off a terminal, print a line every ten seconds."""
        assert self._task is not None
        self._bars.update(self._task, completed=done, total=total, note=note)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._spoke >= _QUIET_SECONDS:
            self._spoke = now
            share = done / total if total else 0.0
            self.console.print(f"  {self._stage:<7} {share:4.0%} {note}".rstrip(), markup=False)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(f"  {self._stage:<7} {text}", markup=False, soft_wrap=True)
