"""Writes an image to disk: as one archive, or as an OCI layout in a directory.

The archive is an OCI layout and a docker-archive at once: the blobs are named as OCI wants them, and a
``manifest.json`` beside ``index.json`` tells older runtimes about the same files.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tunebuild.errors import TunebuildError, fail
from tunebuild.image.oci.content import OUTPUT, Content
from tunebuild.image.oci.copy import copy_range
from tunebuild.image.oci.layer import FileRange, Segment, changed_since, size_of
from tunebuild.image.oci.manifest import (
    Image,
    blob_path,
    docker_manifest_json,
    index_entry,
    index_json,
    names_of,
)
from tunebuild.image.oci.stream import Counter
from tunebuild.image.oci.tar import END, aligned_header, padding
from tunebuild.store import Digest, Progress, Silent
from tunebuild.store.atomic import sync
from tunebuild.store.digest import canonical_json

LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})
"""The file ``oci-layout``."""

_LARGEST_END = 64 << 20
"""Bytes of an archive's end that are replaced in place."""

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


def layout_files(image: Image, others: Sequence[Content] = ()) -> tuple[LayoutFile, ...]:
    """All files of a layout, equal blobs once; those that name others come last.

    Args:
        image: the runnable image, which comes first in the index.
        others: the build's other outputs, and what refers to them and to the image.
    """
    contents = (Content.of_image(image), *others)
    blobs = {
        blob.digest: LayoutFile(blob_path(blob.digest), blob.segments, blob.label, blob.digest)
        for content in contents
        for blob in content.blobs
    }
    manifests = (
        LayoutFile(blob_path(content.digest), (content.manifest,), "manifest", content.digest)
        for content in contents
    )
    entries = [index_entry(image), *(_entry(content, image) for content in others)]
    return (
        *blobs.values(),
        *manifests,
        LayoutFile("oci-layout", (LAYOUT,), "oci-layout"),
        LayoutFile("manifest.json", (docker_manifest_json(image),), "manifest.json"),
        LayoutFile("index.json", (index_json(entries),), "index.json"),
    )


def _entry(content: Content, image: Image) -> dict[str, Any]:
    entry = content.descriptor()
    if content.output:
        named = names_of(image.reference, content.tag(image.reference.tag))
        entry["annotations"] = {**entry.get("annotations", {}), **named, OUTPUT: content.output}
    return entry


def write_archive(
    image: Image, target: Path, progress: Progress | None = None, others: Sequence[Content] = ()
) -> None:
    """Write the image as one tar, under a temporary name until it is whole and on disk.

    Raises:
        TunebuildError: ``disk-full``, ``cannot-write``, ``busy`` (another build writes the same archive),
            ``file-changed`` or ``store-corrupt`` (a source is not what was planned). Nothing is left in
            any of these cases.

    An archive that begins with the same layers is taken over and only its end is written, so that an edit of
    the prompt or the server writes kilobytes. Where that fails the old end is put back; a kill leaves none.
    """
    files = layout_files(image, others)
    counter = Counter(sum(file.size for file in files), progress or Silent())
    kept, position = _common_start(files, target)
    if kept and not _partial(target).exists():  # a killed run's file is dealt with by writing anew
        with explained(target), _taken_over(target, position) as sink:
            counter.add(sum(file.size for file in files[:kept]), "unchanged")
            _append(files[kept:], sink, counter)
        return
    with _written_whole(target) as sink:
        _append(files, sink, counter)


def _append(files: Iterable[LayoutFile], sink: BinaryIO, counter: Counter) -> None:
    for file in files:
        header = aligned_header(file.path, size=file.size, position=sink.tell())
        sink.write(header)
        _copy(file, sink, counter)
        sink.write(padding(file.size))
    sink.write(END)


def write_layout(
    image: Image, target: Path, progress: Progress | None = None, others: Sequence[Content] = ()
) -> None:
    """Write the image as an OCI layout into the directory ``target``, which must be new, empty or a layout.

    Blobs that are there already are kept, so an edit of the app writes kilobytes. ``index.json`` is replaced
    last and in one step; blobs that it no longer needs are removed after that.
    """
    if target.exists() and any(target.iterdir()) and not (target / "oci-layout").is_file():
        raise fail("not-a-layout", f"{target} is not empty and not an OCI layout", "name another directory")
    with explained(target):
        (target / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    files = layout_files(image, others)
    counter = Counter(sum(file.size for file in files), progress or Silent())
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


def _common_start(files: Sequence[LayoutFile], target: Path) -> tuple[int, int]:
    """How many blobs at the start of an archive are the first of ``files``, and where they end.

    Headers are compared, with names, which are digests, and sizes; contents are not read.
    """
    count = position = 0
    try:
        with target.open("rb") as old:
            length = os.fstat(old.fileno()).st_size
            for file in files:
                header = aligned_header(file.path, size=file.size, position=position)
                end = position + len(header) + file.size + len(padding(file.size))
                old.seek(position)
                if file.digest is None or end > length or old.read(len(header)) != header:
                    break
                count, position = count + 1, end
            # What is replaced has to fit into memory, to be put back if something fails.
            return (count, position) if length - position <= _LARGEST_END else (0, 0)
    except OSError:
        return 0, 0


@contextmanager
def _taken_over(target: Path, position: int) -> Iterator[BinaryIO]:
    """The archive from ``position`` on, under another name until it is whole again and on disk."""
    partial = _partial(target)
    with partial.open("xb") as guard, target.open("r+b") as sink:
        # Both, so that a second writer meets a lock whichever of the two has the name.
        if not (mine := _lock(guard, partial)) or not _lock(sink, target):
            if mine:
                partial.unlink()
            raise fail("busy", f"another build is writing {target}", "wait for it to end")
        sink.seek(position)
        old = sink.read()
        target.replace(partial)
        try:
            sink.seek(position)
            sink.truncate()
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        except BaseException:
            sink.seek(position)
            sink.truncate()
            sink.write(old)
            sink.flush()
            raise
        finally:
            partial.replace(target)
    sync(target.parent)


def _partial(target: Path) -> Path:
    # The name is fixed, not random: what a killed run left is overwritten, not collected.
    return target.with_name(f".{target.name}.partial")


def _copy(file: LayoutFile, sink: BinaryIO, counter: Counter) -> None:
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
        raise _changed(file)


def _changed(file: LayoutFile) -> TunebuildError:
    paths = list(dict.fromkeys(s.path for s in file.segments if isinstance(s, FileRange)))
    if len(paths) == 1:
        return changed_since(paths[0])
    text = f"one of the {len(paths)} files of {file.label} is not what the build recorded: it was changed"
    return fail("store-corrupt", text, "'tunebuild cache verify --remove' forgets it; then build again")


@contextmanager
def _written_whole(target: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is complete and on disk."""
    partial = _partial(target)
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
        sync(target.parent)


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
