"""Writes an image to disk: as one archive, or as an OCI layout in a directory.

The archive is an OCI layout and a docker-archive at once: the blobs are named as OCI wants them, and a
``manifest.json`` beside ``index.json`` tells older engines about the same files.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tunebuild.errors import TunebuildError, fail
from tunebuild.image.oci.copy import copy_range
from tunebuild.image.oci.layer import FileRange, Segment, size_of
from tunebuild.image.oci.manifest import Image, blob_path, docker_manifest_json, index_json
from tunebuild.image.oci.tar import END, aligned_header, padding
from tunebuild.store import Digest, Progress, Silent
from tunebuild.store.digest import canonical_json

_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class LayoutFile:
    """One file of a layout. ``digest`` is ``None`` for the few files that are not named by their content."""

    path: str
    segments: tuple[Segment, ...]
    label: str
    digest: Digest | None = None

    @property
    def size(self) -> int:
        """Length in bytes."""
        return sum(size_of(segment) for segment in self.segments)


def layout_files(image: Image) -> tuple[LayoutFile, ...]:
    """All files of the image's layout, equal blobs once; those that name others come last."""
    blobs = {
        layer.digest: LayoutFile(blob_path(layer.digest), layer.segments, layer.name, layer.digest)
        for layer in image.layers
    }
    config, manifest = image.config_digest, image.digest
    return (
        *blobs.values(),
        LayoutFile(blob_path(config), (image.config,), "config", config),
        LayoutFile(blob_path(manifest), (image.manifest,), "manifest", manifest),
        LayoutFile("oci-layout", (canonical_json({"imageLayoutVersion": "1.0.0"}),), "oci-layout"),
        LayoutFile("manifest.json", (docker_manifest_json(image),), "manifest.json"),
        LayoutFile("index.json", (index_json(image),), "index.json"),
    )


def write_archive(image: Image, target: Path, progress: Progress | None = None) -> None:
    """Write the image as one tar, under a temporary name until it is whole and on disk.

    Raises:
        TunebuildError: ``disk-full``, ``cannot-write``, ``busy`` (another build writes the same archive),
            ``file-changed`` (a source is not what was planned). Nothing is left in any of these cases.
    """
    counter = _Counter(image.size, progress or Silent())
    with _written_whole(target) as sink:
        for file in layout_files(image):
            header = aligned_header(file.path, size=file.size, position=sink.tell())
            sink.write(header)
            _copy(file, sink, counter)
            sink.write(padding(file.size))
        sink.write(END)


def write_layout(image: Image, target: Path, progress: Progress | None = None) -> None:
    """Write the image as an OCI layout into the directory ``target``, which must be new, empty or a layout.

    Blobs that are there already are kept, so an edit of the app writes kilobytes. ``index.json`` is replaced
    last and in one step; blobs that it no longer needs are removed after that.
    """
    if target.exists() and any(target.iterdir()) and not (target / "oci-layout").is_file():
        raise fail("not-a-layout", f"{target} is not empty and not an OCI layout", "name another directory")
    with explained(target):
        (target / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    counter = _Counter(image.size, progress or Silent())
    files = layout_files(image)
    for file in files:
        path = target / file.path
        if file.digest and path.is_file() and path.stat().st_size == file.size:
            counter.add(file.size, file.label)
            continue
        with _written_whole(path) as sink:
            _copy(file, sink, counter)
    wanted = {target / file.path for file in files}
    for blob in (target / "blobs" / "sha256").iterdir():
        if blob not in wanted:
            blob.unlink()


@dataclass(slots=True)
class _Counter:
    total: int
    progress: Progress
    done: int = 0

    def add(self, count: int, label: str) -> None:
        self.done = min(self.total, self.done + count)
        self.progress.step(self.done, self.total, label)


def _copy(file: LayoutFile, sink: BinaryIO, counter: _Counter) -> None:
    """Append the file, and check on the way that it is what its digest says."""
    hasher = hashlib.sha256()
    cloned = False
    for segment in file.segments:
        if isinstance(segment, FileRange):
            cloned |= copy_range(segment, sink, hasher.update, lambda n: counter.add(n, file.label))
        else:
            sink.write(segment)
            hasher.update(segment)
            counter.add(len(segment), file.label)
    # Shared blocks were not read, so there is nothing to compare; everything that was read is compared.
    if file.digest and not cloned and hasher.hexdigest() != file.digest.removeprefix("sha256:"):
        raise fail(
            "file-changed", f"the files of {file.label} changed while the image was written", "build again"
        )


@contextmanager
def _written_whole(target: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is complete and on disk."""
    # The name is fixed, not random: what a killed run left is overwritten, not collected.
    partial = target.with_name(f".{target.name}.partial")
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        with partial.open("r+b") as sink:
            if not _lock(sink, partial):
                raise fail("busy", f"another build is writing {target}", "wait for it to end")
            try:
                sink.truncate(0)
                yield sink
                sink.flush()
                os.fsync(sink.fileno())
                partial.replace(target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        _sync_directory(target.parent)


def _lock(sink: BinaryIO, path: Path) -> bool:
    """Take the file for us. Not if its owner has just finished: then it is published under its real name."""
    try:
        fcntl.flock(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(sink.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn what the system says while ``target`` is written into ``disk-full`` or ``cannot-write``."""
    try:
        yield
    except OSError as error:
        raise _write_error(target, error) from error


def _write_error(target: Path, error: OSError) -> TunebuildError:
    if error.errno in _OUT_OF_SPACE:
        hint = "free some space or name a directory on another disk; nothing was left behind"
        return fail("disk-full", f"no space left to write {target}", hint)
    return fail("cannot-write", f"cannot write {target}: {error.strerror or error}", "check the directory")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
