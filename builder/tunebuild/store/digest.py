"""Digests: the only names that content has here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NewType

#: ``sha256:`` followed by 64 hexadecimal digits.
Digest = NewType("Digest", str)

_CHUNK = 1 << 20


def digest_bytes(data: bytes) -> Digest:
    """Digest of bytes in memory."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_file(path: Path) -> Digest:
    """Digest of a file's bytes, read in chunks of 1 MiB."""
    state = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            state.update(view[:count])
    return Digest("sha256:" + state.hexdigest())


def canonical_json(value: Any) -> bytes:
    """One spelling for one value: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest_json(value: Any) -> Digest:
    """Digest of a JSON value, the same for equal values."""
    return digest_bytes(canonical_json(value))
