"""Remembers which repositories blobs were pushed to, so that a registry is asked to mount them from there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tunebuild.store.atomic import write_atomically
from tunebuild.store.digest import Digest

_MOST_REPOSITORIES = 4  # per blob; the latest are likeliest to be there still


class PushMemory:
    """A small file. What it says may be out of date: then a blob is sent like any other.

    Args:
        path: the file; nothing is remembered without one.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def repositories(self, host: str, digest: Digest) -> tuple[str, ...]:
        """Repositories of a registry that had the blob, the latest first."""
        return tuple(self._read().get(host, {}).get(digest, ()))

    def remember(self, host: str, repository: str, digests: Iterable[Digest]) -> None:
        """Note a push."""
        if self._path is None:
            return
        known = self._read()
        of_host = known.setdefault(host, {})
        for digest in digests:
            names = [repository, *(name for name in of_host.get(digest, ()) if name != repository)]
            of_host[digest] = names[:_MOST_REPOSITORIES]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Another push at the same time may lose this note, never leave half of one.
        write_atomically(self._path, json.dumps(known))

    def _read(self) -> dict[str, dict[str, list[str]]]:
        try:
            found = json.loads(self._path.read_text("utf-8")) if self._path else {}
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
