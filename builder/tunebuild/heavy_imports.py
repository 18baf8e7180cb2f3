"""Starting programs and importing the model libraries without the garbage collector in the way.

The libraries make millions of objects that stay. The collector looks at all of them again and again while
they are made (a quarter to a third of the time of importing trl), at each full collection, and once more
at exit.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

_USUAL = gc.get_threshold()


def put_off_collection() -> None:
    """Collect seldom until something heavy is imported: what only starts is done before it would matter."""
    gc.set_threshold(200_000, 20, 20)


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import inside; afterwards nothing that lives then is looked at by the collector again.

    What is garbage already is collected first: frozen, a model that is done with would stay in memory for
    good. And from here on the program works with models, so collections come at their usual pace.
    """
    # It speaks of kernels to download while it is imported, which nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*_USUAL)
        gc.enable()
