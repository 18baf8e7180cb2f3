"""Prepares the runtime in a process of its own, beside the training.

In a thread the two would fight for Python's one lock, and training, which is thousands of small calls, would
take half as long again. The process also steps back for it.
"""

from __future__ import annotations

import os
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tunebuild.errors import TunebuildError, fail
from tunebuild.image.runtime import RuntimeStage
from tunebuild.lock.spec_lock import RuntimeLock
from tunebuild.spec.serving import ImageSpec
from tunebuild.store import Progress, Store, Tree


def prepare_runtime(image: ImageSpec, locked: RuntimeLock | None, store: Path, progress: Progress) -> Tree:
    """Run the runtime stage; blocks until it is done.

    Raises:
        TunebuildError: what the stage raised, or that its process ended without a word.
    """
    context = get_context("spawn")  # the caller may hold threads of torch, which a fork would break
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, image, locked, store), daemon=True)
    process.start()
    sender.close()
    while True:
        try:
            kind, payload = receiver.recv()
        except EOFError:
            process.join()
            message = f"preparing the image's packages ended with status {process.exitcode}"
            raise fail("runtime-ended", message, "was it killed? build again") from None
        if kind == "done":
            tree: Tree = payload
            return tree
        if kind == "error":
            raise payload
        getattr(progress, kind)(*payload)


class _Forward:
    """Progress that is sent to the parent process."""

    def __init__(self, sender: Connection[Any, Any]) -> None:
        self._sender = sender

    def step(self, done: float, total: float, note: str = "") -> None:
        self._sender.send(("step", (done, total, note)))

    def say(self, text: str) -> None:
        self._sender.send(("say", (text,)))


def _work(sender: Connection[Any, Any], image: ImageSpec, locked: RuntimeLock | None, root: Path) -> None:
    os.nice(5)
    try:
        stage = RuntimeStage.of(image, root / "downloads", locked)
        sender.send(("done", Store(root).ensure(stage, _Forward(sender))))
    except (TunebuildError, OSError) as error:
        sender.send(("error", error))
