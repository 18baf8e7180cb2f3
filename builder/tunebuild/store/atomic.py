"""Writes a file whole or not at all: under another name, synced to disk, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, content: bytes | str | Callable[[Path], object]) -> None:
    """Put a file in place so that a reader, or a machine that loses power, finds the old one or the new one.

    Args:
        path: the file; its directory exists.
        content: bytes, text (UTF-8), or what writes the file at the path that it is given.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the disk hold a file, or what a directory lists."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
