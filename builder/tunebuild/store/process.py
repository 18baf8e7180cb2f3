"""Work in a process of its own whose progress, result and errors reach the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Literal

from tunebuild.errors import TunebuildError
from tunebuild.store.stage import Progress

#: What a process sends: a kind and what belongs to it.
Message = tuple[Literal["step", "say", "done", "error"], Any]
Sender = Connection  # of messages


_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def die_with(parent: int) -> None:
    """Have the kernel end this process when the thread that started it ends, even by kill -9.

    Args:
        parent: its process's id; if that has ended by now, this one ends at once.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class Forward:
    """Progress that is sent to the process that waits."""

    def __init__(self, sender: Sender[Message, Any]) -> None:
        self._sender = sender

    def step(self, done: float, total: float, note: str = "") -> None:
        """Send it."""
        self._sender.send(("step", (done, total, note)))

    def say(self, text: str) -> None:
        """Send it."""
        self._sender.send(("say", (text,)))


def report(sender: Sender[Message, Any], work: Callable[[Progress], Any]) -> None:
    """Do the work and send what came of it; anything that a user cannot fix ends the process."""
    try:
        sender.send(("done", work(Forward(sender))))
    except (TunebuildError, OSError) as error:
        sender.send(("error", error))


def relay(message: Message, progress: Progress) -> bool:
    """Pass a message on. Returns whether the work is done.

    Raises:
        TunebuildError, OSError: what the work raised.
    """
    kind, payload = message
    if kind == "error":
        raise payload
    if kind != "done":
        getattr(progress, kind)(*payload)
    return kind == "done"
