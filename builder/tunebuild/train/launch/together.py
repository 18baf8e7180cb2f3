"""Trains in processes that a launcher started, perhaps on several machines, which share each step.

The first of them does what a build does up to the training and tells the others what to train on; they look
at nothing else. The spec's directory and the store are on a volume that all machines share.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from tunebuild.errors import fail
from tunebuild.store import Progress, Silent
from tunebuild.train.launch.processes import require_cards
from tunebuild.train.loop.memory import grow_segments
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.plan.settings import TrainSettings

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_KEY = "tunebuild/task"
_HEARD = "tunebuild/heard/"
_LEAVING = timedelta(minutes=2)
_PREPARING = timedelta(days=7)  # most that the first process may take to prepare rows


@dataclass(frozen=True, slots=True)
class _Task:
    settings: TrainSettings
    data: Path
    base: Path
    work: Path
    out: Path


_TASKS = TypeAdapter(_Task | None)


class Together:
    """The processes that torchrun started, of which this is one; the others wait for what the first one says.

    Raises:
        TunebuildError: no launcher started this process.
    """

    def __init__(self) -> None:
        if missing := [name for name in _VARIABLES if name not in os.environ]:
            text = f"no launcher started this: {', '.join(missing)} not set"
            raise fail("no-launcher", text, "start it with what 'tunebuild launch SPEC' prints")
        # Not a process group: the trainer makes its own, and two in turn would meet under the same names.
        self._store, self.rank, self.count = next(rendezvous("env://"))
        self._store.set_timeout(_PREPARING)
        self._told = False

    def train_in_all_processes(
        self, settings: TrainSettings, *, data: Path, base: Path, work: Path, out: Path, progress: Progress
    ) -> None:
        """As ``train_adapter``, with the others. Only the first process may call it.

        Raises:
            TunebuildError: another number of processes was started than the spec says.
        """
        if self.count != settings.processes:
            text = f"{self.count} processes were started, and the spec says {settings.processes}"
            raise fail("processes", text, "use what 'tunebuild launch SPEC' prints", path="tuning.nodes")
        task = _Task(settings, data.resolve(), base.resolve(), work.resolve(), out.resolve())
        self._tell(task)
        _train(task, progress)

    def follow(self) -> None:
        """Train with the first process, once it says on what, or end if there is nothing to train."""
        try:
            task = _TASKS.validate_json(self._store.get(_KEY))
            self._store.set(f"{_HEARD}{self.rank}", "")
        except distributed.DistError as error:
            raise fail("first-process", f"the first process is gone: {error}", "see its log") from error
        if task:
            grow_segments()
            _train(task, Silent())

    def release(self) -> None:
        """Let the others end if they have not been told to train.

        Waits until they know: one that starts late would look for a launcher that has ended by then.
        """
        if not self._told:
            self._tell(None)
            with suppress(distributed.DistError):
                self._store.wait([f"{_HEARD}{rank}" for rank in range(1, self.count)], _LEAVING)

    def _tell(self, task: _Task | None) -> None:
        self._store.set(_KEY, _TASKS.dump_json(task))
        self._told = True


def _train(task: _Task, progress: Progress) -> None:
    if task.settings.device == "cuda":
        require_cards(task.settings)
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    train_adapter(
        task.settings, data=task.data, base=task.base, work=task.work, out=task.out, progress=progress
    )
