"""Trains in several processes of this machine, one a card, which share each optimizer step."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from tunebuild.errors import fail
from tunebuild.store import Progress, Silent
from tunebuild.store.process import Message, Sender, die_with, relay, report
from tunebuild.train.plan.settings import TrainSettings


def require_cards(settings: TrainSettings) -> None:
    """Refuse a training that needs more cards than this machine has.

    Raises:
        TunebuildError: names both numbers.
    """
    count = settings.tuning.processes
    if settings.device == "cuda" and count > (cards := torch.cuda.device_count()):
        text = f"{count} processes need as many cards, and there are {cards}"
        raise fail("processes", text, "lower it", path="tuning.processes")


def train_in_processes(
    settings: TrainSettings, *, data: Path, base: Path, work: Path, out: Path, progress: Progress
) -> None:
    """As ``train_adapter``, in ``settings.processes`` processes. The first of them writes.

    Raises:
        TunebuildError: what one of them raised, or that one ended without a word; the others are stopped.
    """
    context = get_context("spawn")
    count = settings.processes
    require_cards(settings)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    waiting: dict[Any, Any] = {}
    processes = []
    try:
        for rank in range(count):
            receiver, sender = context.Pipe(duplex=False)
            place = _Place(os.getpid(), rank, port, max(1, torch.get_num_threads() // count))
            arguments = (sender, place, settings, data, base, work, out)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            sender.close()
            waiting[receiver] = process
            processes.append(process)
        while waiting:
            for ready in connection.wait(list(waiting)):
                assert isinstance(ready, Connection)
                try:
                    message: Message = ready.recv()
                except EOFError:
                    _raise_what_another_said(waiting, progress)
                    process = waiting[ready]
                    process.join()
                    text = f"a training process ended with status {process.exitcode}"
                    raise fail(
                        "process-ended", text, "was it killed, or out of memory? build again"
                    ) from None
                if relay(message, progress):
                    del waiting[ready]
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _raise_what_another_said(waiting: Iterable[Any], progress: Progress) -> None:
    """One that fails says why before its end, which ends the others, so there may be a reason to be read."""
    for receiver in waiting:
        with suppress(EOFError):
            while receiver.poll():
                relay(receiver.recv(), progress)


@dataclass(frozen=True, slots=True)
class _Place:
    """A process's place among the others: who started it, its rank, where they meet, its threads."""

    parent: int
    rank: int
    port: int
    threads: int


def _work(
    sender: Sender[Message, Any],
    place: _Place,
    settings: TrainSettings,
    data: Path,
    base: Path,
    work: Path,
    out: Path,
) -> None:
    die_with(place.parent)
    os.environ |= {
        "RANK": str(place.rank),
        "LOCAL_RANK": str(place.rank),
        "WORLD_SIZE": str(settings.processes),
        "LOCAL_WORLD_SIZE": str(settings.processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(place.port),
    }
    from tunebuild.train.loop.run import train_adapter

    if settings.device == "cuda":
        torch.cuda.set_device(place.rank)
    else:
        torch.set_num_threads(place.threads)

    def train(progress: Progress) -> None:
        reporter = progress if place.rank == 0 else Silent()
        train_adapter(settings, data=data, base=base, work=work, out=out, progress=reporter)

    report(sender, train)
