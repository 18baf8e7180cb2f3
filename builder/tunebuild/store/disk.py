"""A full disk, whatever library runs into it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOTHING_LEFT = 1 << 20  # bytes; no file of a build fits into less


@contextmanager
def full_disk_named(directory: Path) -> Iterator[None]:
    """Turn any failure on a full disk into ``OSError`` with ``ENOSPC``.

    Libraries written in Rust and C++ report it as errors of their own kinds, some without saying why.
    """
    try:
        yield
    except Exception as error:
        if "No space left" in str(error) or shutil.disk_usage(directory).free < _NOTHING_LEFT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory)) from error
        raise
