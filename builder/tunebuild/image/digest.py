"""The content digest that names every blob of an image."""

from __future__ import annotations

import hashlib
from typing import NewType

Digest = NewType("Digest", str)
"""``sha256:`` followed by 64 lower-case hex digits."""

BLOCK = 1 << 20
"""Bytes read at a time wherever a file is hashed or copied."""


def digest_of(data: bytes) -> Digest:
    """Digest of bytes in memory."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def hex_of(digest: Digest) -> str:
    """The hex part, which is the blob's file name in a layout."""
    return digest.removeprefix("sha256:")
