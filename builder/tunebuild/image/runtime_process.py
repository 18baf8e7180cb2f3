"""Prepares the runtime in a process of its own, beside the training.

In a thread the two would fight for Python's one lock, and training, which is thousands of small calls, would
take half as long again. The process also steps back for it.
"""

from __future__ import annotations

import os
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.image.runtime import RuntimeStage, WantedRuntime
from tunebuild.lock.spec_lock import RuntimeLock
from tunebuild.store import Progress, Store, Tree
from tunebuild.store.process import Message, Sender, relay, report


def prepare_runtime(
    wanted: WantedRuntime,
    locked: RuntimeLock | None,
    store: Path,
    progress: Progress,
) -> Tree:
    """Run the runtime stage of these; blocks until it is done.

    Raises:
        TunebuildError: what the stage raised, or that its process ended without a word.
    """
    context = get_context("spawn")  # the caller may hold threads of torch, which a fork would break
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, wanted, locked, store), daemon=True)
    process.start()
    sender.close()
    while True:
        try:
            message: Message = receiver.recv()
        except EOFError:
            process.join()
            text = f"preparing the image's packages ended with status {process.exitcode}"
            raise fail("runtime-ended", text, "was it killed? build again") from None
        if relay(message, progress):
            tree: Tree = message[1]
            return tree


def _work(
    sender: Sender[Message, Any],
    wanted: WantedRuntime,
    locked: RuntimeLock | None,
    root: Path,
) -> None:
    os.nice(5)
    stage = RuntimeStage.of(wanted, root / "downloads", locked)
    report(sender, lambda progress: Store(root).ensure(stage, progress))
