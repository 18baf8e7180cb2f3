"""The two ways in which a layout is stored: a directory, or one tar. Reads in place, unpacks nothing."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from tunebuild.errors import Diagnostic
from tunebuild.image.oci.layer import FileRange
from tunebuild.image.oci.tar import BLOCK, END, aligned_header, padding

BLOCK_SIZE = 512
_LONGEST_NAME = 1 << 16  # bytes; the record is stretched to align what follows


class DirectoryFiles:
    """A layout in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> frozenset[str]:
        """Paths of all files."""
        return frozenset(p.relative_to(self._root).as_posix() for p in self._root.rglob("*") if p.is_file())

    def open(self, name: str) -> BinaryIO:
        """A stream over one file."""
        try:
            return (self._root / name).open("rb")
        except FileNotFoundError:
            raise LookupError(f"there is no {name}") from None

    def place(self, name: str) -> FileRange:
        """Where the file's bytes are."""
        return FileRange(self._root / name, 0, self.size(name))

    def size(self, name: str) -> int:
        """Length in bytes."""
        try:
            return (self._root / name).stat().st_size
        except FileNotFoundError:
            raise LookupError(f"there is no {name}") from None


class ArchiveFiles:
    """A layout in one uncompressed tar; its headers are read once, its contents on demand."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with tarfile.open(path, "r:") as tar:
            self._places = {m.name: (m.offset_data, m.size) for m in tar if m.isfile()}
        end = path.stat().st_size
        for name, (offset, size) in self._places.items():
            if offset + size > end:
                raise ValueError(f"it ends in the middle of {name}")

    def names(self) -> frozenset[str]:
        """Paths of all files."""
        return frozenset(self._places)

    def open(self, name: str) -> BinaryIO:
        """A stream over one file."""
        offset, size = self._place(name)
        return cast(BinaryIO, io.BufferedReader(_Window(self._path, offset, size), BLOCK))

    def place(self, name: str) -> FileRange:
        """Where the file's bytes are, in the archive."""
        return FileRange(self._path, *self._place(name))

    def size(self, name: str) -> int:
        """Length in bytes."""
        return self._place(name)[1]

    def _place(self, name: str) -> tuple[int, int]:
        if name not in self._places:
            raise LookupError(f"there is no {name}")
        return self._places[name]


def check_framing(path: Path) -> Diagnostic | None:
    """``None`` if everything between an archive's files is what we write there, else what is not.

    Digests cover the files; this covers headers, padding and the end. An archive that another program wrote
    has other bytes there throughout, and is not looked at.
    """
    hint = "copy or build the image again"
    problems, entries, position, size = [], 0, 0, path.stat().st_size
    with path.open("rb") as file:
        while position + len(END) < size:
            entries += 1
            try:
                name, length, header = _read_header(file, position)
            except (tarfile.HeaderError, UnicodeDecodeError, ValueError):
                what = f"the header of its file number {entries}, at byte {position:,}, is damaged"
                problems.append(what)
                break
            if header != aligned_header(name, size=length, position=position):
                problems.append(f"the header of {name}, at byte {position:,}, is not what was written")
            position += len(header) + length
            file.seek(position)
            if file.read(-length % BLOCK_SIZE) != padding(length):
                problems.append(f"what follows {name}, at byte {position:,}, is not what was written")
            position += len(padding(length))
        else:
            file.seek(position)
            if file.read() != END:
                problems.append(f"its end, at byte {position:,}, is not what was written")
    foreign = entries > 1 and len(problems) >= entries
    if not problems or foreign:
        return None
    return Diagnostic("corrupt-image", f"{path}: {'; '.join(problems)}", hint)


def _read_header(file: BinaryIO, position: int) -> tuple[str, int, bytes]:
    """Name and length of a file of a tar, and its header with the record of a long name."""
    file.seek(position)
    header = file.read(BLOCK_SIZE)
    info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    name = info.name
    if info.type == tarfile.GNUTYPE_LONGNAME:
        if info.size > _LONGEST_NAME:
            raise ValueError("no name is that long")
        header += file.read(info.size + -info.size % BLOCK_SIZE)
        name = header[BLOCK_SIZE:].partition(b"\0")[0].decode()
        last = file.read(BLOCK_SIZE)
        info = tarfile.TarInfo.frombuf(last, "utf-8", "strict")
        header += last
    return name, info.size, header


class _Window(io.RawIOBase):
    """A part of a file, as a seekable stream."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._offset, self._size, self._at = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._offset + self._at)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Openable(Protocol):
    def open(self, name: str) -> BinaryIO: ...


def check_digest(files: _Openable, name: str, role: str, place: Path) -> Diagnostic | None:
    """``None`` if the blob is what its name says, else what is wrong and with which part of the image."""
    hint = "copy or build the image again"
    hasher = hashlib.sha256()
    try:
        with files.open(name) as stream:
            while block := stream.read(BLOCK):
                hasher.update(block)
    except LookupError:
        return Diagnostic("corrupt-image", f"{place}: {role} is missing ({name})", hint)
    if hasher.hexdigest() == name.rpartition("/")[2]:
        return None
    message = f"{place}: {role} is corrupt: {name} has the digest sha256:{hasher.hexdigest()}"
    return Diagnostic("corrupt-image", message, hint)
