"""Remembers the digests of files that have not changed, so that looking again costs a ``stat``.

A file is taken as unchanged if device, inode, size, modification and change time are what they were.
Git's racy rule closes the hole that leaves: a file that changed less than two seconds before it was
digested is digested again next time, since a second write could fall into the same clock tick.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tunebuild.store.digest import Digest, digest_file

_RACY_NS = 2_000_000_000


class DigestMemo:
    """A memo in an SQLite file, safe to share between processes.

    Args:
        path: the database; made if absent. Losing it loses nothing but time.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._lock = threading.Lock()  # files are digested in several threads, the database asked in one
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS memo"
            " (path TEXT PRIMARY KEY, stat TEXT NOT NULL, digest TEXT NOT NULL)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def digest(self, path: Path) -> Digest:
        """Digest of a file, from memory where that is safe."""
        path = path.resolve()
        stamp = _stamp(path)
        with self._lock:
            row = self._database.execute(
                "SELECT stat, digest FROM memo WHERE path = ?", (str(path),)
            ).fetchone()
        if row and row[0] == stamp:
            return Digest(row[1])
        digest = digest_file(path)
        self._remember(path, digest, stamp)
        return digest

    def moved(self, old: Path, new: Path) -> None:
        """Know the files of a directory, which was renamed, by their new names."""
        old, new = old.parent.resolve() / old.name, new.resolve()
        with self._lock:
            self._database.execute(
                "UPDATE OR REPLACE memo SET path = ? || substr(path, ?) WHERE substr(path, 1, ?) = ?",
                (str(new), len(str(old)) + 1, len(str(old)) + 1, f"{old}/"),
            )

    def _remember(self, path: Path, digest: Digest, stamp: str) -> None:
        status = path.stat()
        racy = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _RACY_NS
        if not racy and stamp == _stamp(path):
            with self._lock:
                self._database.execute(
                    "INSERT OR REPLACE INTO memo VALUES (?, ?, ?)", (str(path), stamp, digest)
                )


def _stamp(path: Path) -> str:
    s = path.stat()
    return f"{s.st_dev}:{s.st_ino}:{s.st_size}:{s.st_mtime_ns}:{s.st_ctime_ns}"
