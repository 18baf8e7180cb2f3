"""Shows how far a build is: bars on a terminal, a line now and then elsewhere. All on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tunebuild.printable import printable, printable_line

_QUIET_SECONDS = 10.0


class Reporter:
    """Draws one bar a running stage. Call it with a stage's name for that stage's progress."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr, highlight=False)  # whatever is put in its place for a while
        self.bars = Progress(
            TextColumn("  {task.description:<8}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, stage: str) -> StageProgress:
        """Progress of a stage that starts now."""
        return StageProgress(self, stage)


class StageProgress:
    """One stage's bar. Implements :class:`tunebuild.store.Progress`."""

    def __init__(self, reporter: Reporter, stage: str) -> None:
        self._reporter, self._stage = reporter, stage
        self._task: TaskID | None = None
        self._spoke = time.monotonic()

    def step(self, done: float, total: float, note: str = "") -> None:
        """Move the bar; off a terminal, print a line every ten seconds."""
        note = printable_line(note)
        bars, console = self._reporter.bars, self._reporter.console
        if self._task is None:
            self._task = bars.add_task(self._stage, total=total, note=note)
        bars.update(self._task, completed=done, total=total, note=note, visible=done < total)
        if not console.is_terminal and time.monotonic() - self._spoke >= _QUIET_SECONDS:
            self._spoke = time.monotonic()
            share = done / total if total else 0.0
            console.print(f"  {self._stage:<8} {share:4.0%} {note}".rstrip(), markup=False)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._reporter.console.print(f"  {self._stage:<8} {printable(text)}", markup=False, soft_wrap=True)
