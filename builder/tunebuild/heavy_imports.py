"""Imports of the model libraries without the garbage collector in the way.

They make millions of objects that stay. The collector looks at all of them again and again while they are
made (a quarter to a third of the time of importing trl), at each full collection, and once more at exit.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import inside; afterwards nothing that lives then is looked at by the collector again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
