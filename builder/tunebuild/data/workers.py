"""Tokenizes chunks on all cores, and hands them back in order."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice

from tunebuild.data.tokenize import Chunk, Tokenized, Tokenizer
from tunebuild.errors import fail

# A process takes half a second to start; these many chunks are done by then.
_AT_HOME = 4
_tokeniser: Tokenizer


def tokenise_in_order(chunks: Iterator[Chunk], tokenizer: Tokenizer, workers: int) -> Iterator[Tokenized]:
    """Tokenize chunks in ``workers`` processes; few chunks, or with one worker, in this one.

    No more chunks are read ahead than keep the workers busy, so memory does not grow with the data.

    Raises:
        TunebuildError: a process died.
    """
    yield from map(tokenizer, chunks if workers == 1 else islice(chunks, _AT_HOME))
    following = next(chunks, None)
    if following is None:
        return
    # Not forked: the tokenizer's threads would not survive it.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(tokenizer,)
    )
    pending: deque[Future[Tokenized]] = deque()
    try:
        for chunk in chain([following], chunks):
            pending.append(pool.submit(_tokenize, chunk))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        hint = "it may have run out of memory: give the machine more, or fewer cores (taskset)"
        raise fail("worker-died", "a process that tokenizes rows was killed", hint) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start(tokenizer: Tokenizer) -> None:
    global _tokeniser
    _tokeniser = tokenizer
    # There is a process for each core already.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Rows make many objects and few cycles, and what is there already stays for good.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that was killed takes no leave, and a worker would wait for its next chunk for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _tokenize(chunk: Chunk) -> Tokenized:
    return _tokeniser(chunk)
