"""Tar streams that depend on nothing but names, modes and contents.

GNU format on purpose: scanners that ignore the size record of the newer PAX format misread files above 8 GiB.
Times, owners and their names are zero or empty, so that two machines write the same bytes.
"""

from __future__ import annotations

import hashlib
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Literal

from tunebuild.errors import fail
from tunebuild.store.digest import Digest

Kind = Literal["file", "dir", "symlink", "hardlink"]

BLOCK = 1 << 20
"""Bytes read at a time wherever a file is hashed or copied."""

END = bytes(1024)
"""The two zero blocks that close a tar."""

ALIGNMENT = 4096
"""Block size of the file systems that can share blocks between files (XFS, btrfs), in bytes."""

_TYPES: dict[Kind, bytes] = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}


@dataclass(frozen=True, slots=True)
class TarDigest:
    """What a finished tar is known by: digest and size (bytes) of the whole uncompressed stream."""

    digest: Digest
    size: int


def entry_header(
    name: str, *, size: int = 0, mode: int = 0o644, kind: Kind = "file", link: str = ""
) -> bytes:
    """The header blocks of one entry; the caller appends ``size`` bytes and :func:`padding`.

    ``name`` is relative, with forward slashes; a name or link above 100 bytes takes extra GNU blocks.
    ``link`` is the target of a symlink, or the archive name a hardlink repeats.
    """
    if not _is_clean(name):
        raise ValueError(f"not a clean relative path: {name!r}")
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.linkname = _TYPES[kind], size, mode, link
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def aligned_header(name: str, *, size: int, mode: int = 0o644, position: int) -> bytes:
    """Like :func:`entry_header` for a file, but the data starts at a multiple of :data:`ALIGNMENT`.

    ``position`` is the tar's length so far. File systems that share blocks between files can then put a large
    file into a tar without copying it. The slack is an over-long GNU long-name record: a reader takes the
    name up to its first zero byte.
    """
    plain = entry_header(name, size=size, mode=mode)
    if (position + len(plain)) % ALIGNMENT == 0:
        return plain
    encoded = name.encode("utf-8", "surrogateescape") + b"\0"
    needed = len(encoded) + -len(encoded) % 512
    payload = needed + -(position + 1024 + needed) % ALIGNMENT
    record = tarfile.TarInfo("././@LongLink")
    record.type, record.size, record.mode = tarfile.GNUTYPE_LONGNAME, payload, 0
    short = encoded[:-1][:100].decode("utf-8", "surrogateescape")
    return (
        record.tobuf(tarfile.GNU_FORMAT)
        + encoded.ljust(payload, b"\0")
        + entry_header(short, size=size, mode=mode)
    )


def padding(size: int) -> bytes:
    """Zero bytes that round an entry of ``size`` bytes up to whole 512-byte blocks."""
    return bytes(-size % 512)


def missing_parents(name: str, known: set[str]) -> Iterator[str]:
    """Directories above ``name`` that are not in ``known``, outermost first; adds them to ``known``."""
    parents = [str(parent) for parent in PurePosixPath(name).parents][:-1]
    for parent in reversed(parents):
        if parent not in known:
            known.add(parent)
            yield parent


class TarWriter:
    """Writes one deterministic tar into ``sink``, hashing as it goes. Parents are emitted once, before use.

    Entries appear in the order of the calls: the caller sorts. Nothing needs to be seekable.
    """

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self._size = 0
        self._directories: set[str] = set()

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory unless it is there already."""
        self._parents(name)
        if name not in self._directories:
            self._directories.add(name)
            self._write(entry_header(name, mode=mode, kind="dir"))

    def data(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a file of bytes in memory."""
        self._parents(name)
        self._write(entry_header(name, size=len(data), mode=mode))
        self._write(data)
        self._write(padding(len(data)))

    def file(self, name: str, path: Path, mode: int | None = None) -> None:
        """Add a file from disk. Without ``mode`` it becomes 0755 or 0644 after the owner's execute bit."""
        status = path.stat()
        self._parents(name)
        self._write(
            entry_header(
                name, size=status.st_size, mode=normal_mode(status.st_mode) if mode is None else mode
            )
        )
        with path.open("rb", buffering=0) as source:
            self._content(source, status.st_size, str(path))

    def stream(self, name: str, size: int, source: IO[bytes], mode: int = 0o644) -> None:
        """Add a file of ``size`` bytes that are read from ``source``, such as a member of another archive."""
        self._parents(name)
        self._write(entry_header(name, size=size, mode=mode))
        self._content(source, size, name)

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link; ``target`` is kept as it is."""
        self._parents(name)
        self._write(entry_header(name, mode=0o777, kind="symlink", link=target))

    def finish(self) -> TarDigest:
        """Close the tar (not the sink) and tell what was written."""
        self._write(END)
        return TarDigest(Digest("sha256:" + self._hash.hexdigest()), self._size)

    def _content(self, source: IO[bytes], size: int, shown: str) -> None:
        left = size
        while left and (block := source.read(min(BLOCK, left))):
            self._write(block)
            left -= len(block)
        if left:
            raise fail("file-changed", f"{shown} became shorter while it was read", "build again")
        self._write(padding(size))

    def _parents(self, name: str) -> None:
        for parent in missing_parents(name, self._directories):
            self._write(entry_header(parent, mode=0o755, kind="dir"))

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self._hash.update(data)
        self._size += len(data)


def write_tree(root: Path, prefix: str, sink: BinaryIO) -> TarDigest:
    """Stream the directory ``root`` as a tar whose names start with ``prefix`` (``""`` for none).

    Sorted by the UTF-8 bytes of the names, modes normalized to 0755 and 0644, symlinks kept, not followed.

    Raises:
        TunebuildError: ``special-file`` for a socket, device or pipe; ``file-changed`` if a file shrinks.
    """
    writer = TarWriter(sink)
    if prefix:
        writer.directory(prefix)
    for path in sorted(root.rglob("*"), key=lambda p: bytes(p.relative_to(root))):
        name = str(PurePosixPath(prefix) / path.relative_to(root).as_posix())
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            writer.symlink(name, str(path.readlink()))
        elif stat.S_ISDIR(mode):
            writer.directory(name)
        elif stat.S_ISREG(mode):
            writer.file(name, path)
        else:
            raise fail("special-file", f"{path} is neither a file, a directory nor a symlink", "remove it")
    return writer.finish()


def normal_mode(mode: int) -> int:
    """0755 for what its owner may execute, else 0644: no umask may reach the image."""
    return 0o755 if mode & stat.S_IXUSR else 0o644


def _is_clean(name: str) -> bool:
    # A leading slash or "..", or an empty part, would be read differently by different unpackers.
    return bool(name) and all(part not in ("", ".", "..") for part in name.split("/"))
