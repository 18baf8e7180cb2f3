"""A layer is an uncompressed tar described as header bytes and file ranges: nothing is tarred on disk.

Uncompressed on purpose: weights in bf16 hardly compress, every runtime takes plain tar, and a compressor's
output changes with its version, which would make the digest depend on the machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunebuild.errors import TunebuildError, fail
from tunebuild.image.oci.tar import (
    BLOCK,
    END,
    aligned_header,
    entry_header,
    missing_parents,
    normal_mode,
    padding,
)
from tunebuild.store.digest import Digest

_ALIGNED_FROM = 1 << 20
"""Files from this size (bytes) on start on a block boundary; below it, copying is as cheap as sharing."""


@dataclass(frozen=True, slots=True)
class FileRange:
    """``size`` bytes of the file ``path``, from ``offset`` on."""

    path: Path
    offset: int
    size: int

    @classmethod
    def whole(cls, path: Path) -> FileRange:
        """All of a file, as long as it is now. A symlink is followed and resolved."""
        return cls(path.resolve(), 0, path.stat().st_size)


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link's target, kept as it is."""

    target: str


Segment = bytes | FileRange


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a layer or of a build context. ``content`` of ``None`` makes a directory."""

    name: str
    content: Segment | Symlink | None
    mode: int = 0o644

    @classmethod
    def of_file(cls, name: str, path: Path) -> Entry:
        """A file from disk, 0755 if its owner may execute it, else 0644."""
        return cls(name, FileRange.whole(path), normal_mode(path.stat().st_mode))


@dataclass(frozen=True, slots=True)
class Layer:
    """A finished layer: ``digest`` (also the diff id) and ``size`` (bytes) of its uncompressed tar.

    ``name`` is for people (progress, errors); ``created_by`` is what the image's history says.
    """

    name: str
    created_by: str
    segments: tuple[Segment, ...]
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class FilesLayer:
    """A planned layer whose digest is not known yet, since its files have not been read."""

    name: str
    created_by: str
    entries: tuple[Entry, ...]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The tar, without reading a byte of the files."""
        return tuple(segments_of(self.entries))

    @property
    def size(self) -> int:
        """Length of the tar in bytes."""
        return sum(size_of(segment) for segment in self.segments)


def segments_of(entries: Iterable[Entry]) -> Iterator[Segment]:
    """The tar of ``entries``, sorted by the UTF-8 bytes of their names, parents included."""
    known: set[str] = set()
    position = 0
    for entry in sorted(entries, key=lambda e: e.name.encode("utf-8", "surrogateescape")):
        for part in _entry_segments(entry, known, position):
            position += size_of(part)
            yield part
    yield END


def size_of(segment: Segment) -> int:
    """Length in bytes."""
    return segment.size if isinstance(segment, FileRange) else len(segment)


def read_segments(segments: Iterable[Segment]) -> Iterator[bytes]:
    """The bytes of ``segments`` in blocks. Can be called again: nothing is consumed.

    Raises:
        TunebuildError: ``file-changed`` if a file is shorter than its range.
    """
    for segment in segments:
        if isinstance(segment, bytes):
            yield segment
        else:
            yield from _read_range(segment)


def layer_of_files(layer: FilesLayer, measured: Mapping[Path, Digest] | None = None) -> Layer:
    """Read the files once to learn the layer's digest.

    Args:
        layer: the layer.
        measured: digests that files had when they were measured, by resolved path.

    Raises:
        TunebuildError: ``store-corrupt`` if a file is another one by now.
    """
    return _hashed(layer.name, layer.created_by, layer.segments, measured or {})


def layer_of_blob(path: Path, digest: Digest, size: int, *, name: str, created_by: str) -> Layer:
    """A layer already written as one uncompressed tar; ``digest`` is checked when it is copied."""
    return Layer(name, created_by, (FileRange(path, 0, size),), digest, size)


def changed_since(path: Path) -> TunebuildError:
    """A file of the store is not what the build wrote and measured."""
    return fail(
        "store-corrupt",
        f"{path} is not what was measured: it was changed afterwards, so no image is made of it",
        "'tunebuild cache verify --remove' forgets what is damaged; then build again",
    )


def _hashed(
    name: str, created_by: str, segments: tuple[Segment, ...], measured: Mapping[Path, Digest]
) -> Layer:
    hasher = hashlib.sha256()
    for segment in segments:
        known = measured.get(segment.path) if isinstance(segment, FileRange) else None
        own = hashlib.sha256() if known else None
        for block in read_segments([segment]):
            hasher.update(block)
            if own:
                own.update(block)
        if isinstance(segment, FileRange) and own and f"sha256:{own.hexdigest()}" != known:
            raise changed_since(segment.path)
    size = sum(size_of(segment) for segment in segments)
    return Layer(name, created_by, segments, Digest("sha256:" + hasher.hexdigest()), size)


def _entry_segments(entry: Entry, known: set[str], position: int) -> Iterator[Segment]:
    head = b"".join(
        entry_header(parent, mode=0o755, kind="dir") for parent in missing_parents(entry.name, known)
    )
    if entry.name in known:
        if entry.content is None:
            return  # given explicitly and as a parent
        raise ValueError(f"two entries are named {entry.name}")
    known.add(entry.name)
    content = entry.content
    if content is None:
        yield head + entry_header(entry.name, mode=entry.mode, kind="dir")
    elif isinstance(content, Symlink):
        yield head + entry_header(entry.name, mode=0o777, kind="symlink", link=content.target)
    else:
        size = size_of(content)
        if size >= _ALIGNED_FROM:
            place = position + len(head)
            yield head + aligned_header(entry.name, size=size, mode=entry.mode, position=place)
        else:
            yield head + entry_header(entry.name, size=size, mode=entry.mode)
        yield content
        yield padding(size)


def _read_range(part: FileRange) -> Iterator[bytes]:
    left = part.size
    with part.path.open("rb", buffering=0) as source:
        source.seek(part.offset)
        while left and (block := source.read(min(BLOCK, left))):
            left -= len(block)
            yield block
    if left:
        raise fail("file-changed", f"{part.path} became shorter while it was read", "build again")
