"""Reads ``.deb`` archives with the standard library: an ar archive that holds a tar."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterator

from tunebuild.errors import fail

_MAGIC = b"!<arch>\n"


def data_members(deb: bytes, shown: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Members of a package's file tree with their contents (empty for all but regular files).

    Raises:
        TunebuildError: not a Debian package, or compressed in a way that is not known.
    """
    for name, content in _ar_members(deb, shown):
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(_decompressed(name, content, shown))) as tar:
                for member in tar:
                    stream = tar.extractfile(member) if member.isreg() else None
                    yield member, stream.read() if stream else b""
            return
    raise fail("bad-deb", f"{shown} holds no data.tar")


def _ar_members(deb: bytes, shown: str) -> Iterator[tuple[str, bytes]]:
    if not deb.startswith(_MAGIC):
        raise fail("bad-deb", f"{shown} is not a Debian package")
    at = len(_MAGIC)
    while at + 60 <= len(deb):
        name = deb[at : at + 16].decode("ascii").strip().rstrip("/")
        size = int(deb[at + 48 : at + 58])
        yield name, deb[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def _decompressed(name: str, content: bytes, shown: str) -> bytes:
    if name.endswith(".xz"):
        return lzma.decompress(content)
    if name.endswith(".zst"):
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read()
    if name == "data.tar":
        return content
    raise fail("bad-deb", f"{shown}: cannot decompress {name}")
