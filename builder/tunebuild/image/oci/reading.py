"""Reads an image back from an archive or a layout: its labels, and its files.

No container runtime is needed, so ``verify`` and ``explain`` work on a build machine that has none.
"""

from __future__ import annotations

import json
import posixpath
import shutil
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from tunebuild.errors import TunebuildError, fail
from tunebuild.image.oci.blobs import ArchiveFiles, DirectoryFiles
from tunebuild.image.oci.content import OUTPUT, Content, read_content
from tunebuild.image.oci.layer import FileRange
from tunebuild.image.oci.manifest import blob_path
from tunebuild.image.oci.reference import ImageReference
from tunebuild.store.digest import Digest, digest_bytes

_INDEX = "index.json"
_SHOWN = 3  # images near a path that leads to none


class LayoutFiles(Protocol):
    """The files of a layout, however they are stored."""

    def names(self) -> frozenset[str]:
        """Paths of all files, relative to the layout."""

    def open(self, name: str) -> BinaryIO:
        """A stream over one file. ``LookupError`` if it is absent."""

    def place(self, name: str) -> FileRange:
        """Where a file's bytes are. ``LookupError`` if it is absent."""

    def size(self, name: str) -> int:
        """Length in bytes. ``LookupError`` if it is absent."""


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer of a stored image: ``created_by`` from the history, empty if that says nothing."""

    digest: Digest
    size: int
    created_by: str


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that was read from ``place``.

    ``config`` is the parsed image config; ``index`` what the layout's index lists, this image first;
    ``layout`` its files.
    """

    place: Path
    digest: Digest
    config_digest: Digest
    name: str
    config: Mapping[str, Any]
    layers: tuple[StoredLayer, ...]
    index: tuple[Mapping[str, Any], ...]
    layout: LayoutFiles

    @property
    def labels(self) -> Mapping[str, str]:
        """The image's labels."""
        return cast(Mapping[str, str], self.config.get("config", {}).get("Labels") or {})

    def blob(self, digest: Digest) -> FileRange:
        """Where a blob's bytes are. ``LookupError`` if it is absent."""
        return self.layout.place(blob_path(digest))

    @property
    def manifest(self) -> bytes:
        """The manifest's exact bytes."""
        return read_file(self.layout, blob_path(self.digest))

    def contents(self) -> tuple[Content, ...]:
        """Everything that the layout holds: the image, the build's other outputs, and what refers to them.

        Raises:
            TunebuildError: ``bad-archive``: a blob is missing, or a manifest is not what its digest says.
        """
        return self._contents(self.index)

    def _contents(self, entries: Iterable[Mapping[str, Any]]) -> tuple[Content, ...]:
        try:
            return tuple(
                read_content(
                    _read_checked(self.layout, Digest(entry["digest"]), "manifest"),
                    self.blob,
                    notes_of(entry).get(OUTPUT, ""),
                )
                for entry in entries
            )
        except (LookupError, TypeError, ValueError) as error:
            hint = "it was cut short; build or fetch it again"
            raise fail("bad-archive", f"{self.place} lacks something: {error}", hint) from error

    def referrers(self) -> tuple[Content, ...]:
        """What refers to the image or to another output. Raises as :meth:`contents`."""
        return self._contents([e for e in self.index if e.get("artifactType") and OUTPUT not in notes_of(e)])

    def file(self, path: str) -> bytes | None:
        """A regular file of the image; ``None`` if there is none. Links are not followed."""
        for member, content in self._entries():
            if member.isfile() and member.name.removeprefix("./") == path:
                return content().read()
        return None

    def files(self, prefix: str) -> Generator[tuple[str, bytes]]:
        """Name (without ``prefix``) and content of the regular files below ``prefix``, such as ``opt/x``.

        Where two layers have the same file, the upper one counts. Symlinks to what a layer below holds are
        followed; whiteouts are not, as our own layers have none. Contents are held in memory one by one:
        meant for the small files of a bundle.
        """
        for name, stream, _ in self._members(prefix):
            yield name, stream.read()

    def extract(self, prefix: str, target: Path) -> int:
        """Write the regular files below ``prefix`` into ``target``; the number of files.

        Names come from a stranger's archive, so none of them can leave ``target``.
        """
        count = 0
        for name, stream, mode in self._members(prefix):
            path = target / name
            if ".." in path.parts or not path.is_relative_to(target):
                raise fail("bad-archive", f"{self.place} holds a file named {name!r}", "do not use it")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as sink:
                shutil.copyfileobj(stream, sink, 1 << 20)
            path.chmod(0o755 if mode & 0o100 else 0o644)
            count += 1
        return count

    def _members(self, prefix: str) -> Iterator[tuple[str, BinaryIO, int]]:
        start = prefix.strip("/") + "/"
        places, seen = [(start, "")], set[str]()
        for member, content in self._entries():
            name = member.name.removeprefix("./")
            if member.issym() and name.startswith(start):
                target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                places.append((target.lstrip("/"), name.removeprefix(start)))
            if not member.isfile():
                continue
            for place, shown in places:
                inside = name.removeprefix(place)
                if inside == name or (shown and inside and not inside.startswith("/")):
                    continue
                if (found := shown + inside) in seen:
                    continue
                seen.add(found)
                yield found, content(), member.mode

    def _entries(self) -> Iterator[tuple[tarfile.TarInfo, Callable[[], BinaryIO]]]:
        """Entries of all layers, those of the uppermost first, and what opens a regular file's content."""
        for layer in reversed(self.layers):
            with (
                self.layout.open(blob_path(layer.digest)) as blob,
                tarfile.open(fileobj=blob, mode="r:*") as tar,
            ):
                for member in tar:
                    yield member, partial(_content, tar, member)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    stream = tar.extractfile(member)
    assert stream is not None
    return cast(BinaryIO, stream)


def open_archive(path: Path) -> StoredImage:
    """Open an archive file or a layout directory. Reads the manifest and the config only.

    Raises:
        TunebuildError: ``no-image`` (nothing there), ``bad-archive`` (not an OCI layout, truncated, or its
            manifest or config is not what its digest says).
    """
    if not path.exists():
        raise fail("no-image", f"there is no image at {path}", images_near(path))
    if path.is_dir() and not (path / _INDEX).is_file():
        raise fail("no-image", f"{path} is a directory, but no OCI layout", images_near(path))
    try:
        files: LayoutFiles = DirectoryFiles(path) if path.is_dir() else ArchiveFiles(path)
        return open_files(path, files)
    except (LookupError, TypeError, ValueError, tarfile.TarError, EOFError) as error:
        hint = "it is damaged or not an OCI image; build or fetch it again"
        raise fail("bad-archive", f"cannot read an image from {path}: {error}", hint) from error


def images_near(path: Path) -> str:
    """What to do about a path that leads to no image: the archives and layouts in that directory."""
    place = path if path.is_dir() else path.parent
    found = [
        near.name
        for near in (sorted(place.iterdir()) if place.is_dir() else ())
        if near.suffix == ".tar" or (near / _INDEX).is_file()
    ]
    likely = get_close_matches(path.name, found, n=_SHOWN, cutoff=0.0)
    return (
        f"did you mean {' or '.join(str(place / name) for name in likely)}?" if likely else "build it first"
    )


def holds(path: Path, reference: ImageReference, manifests: Sequence[Digest]) -> bool:
    """Whether the archive or layout at ``path`` is exactly these manifests, the image's first, under this
    name. Contents are not read."""
    try:
        found = open_archive(path)
    except TunebuildError:
        return False
    return found.name == reference.full_name and [e["digest"] for e in found.index] == list(manifests)


def open_files(path: Path, files: LayoutFiles) -> StoredImage:
    """The image of a layout's files; ``path`` is what messages call it. Raises what reading it raises."""
    entries = json.loads(read_file(files, _INDEX))["manifests"]
    images = [e for e in entries if "artifactType" not in e and OUTPUT not in notes_of(e)]
    if len(images) != 1 or images[0] is not entries[0]:
        raise ValueError(f"it holds {len(images)} images, not one")
    digest = Digest(entries[0]["digest"])
    manifest = _read_json(files, digest, "manifest")
    config_digest = Digest(manifest["config"]["digest"])
    config = _read_json(files, config_digest, "config")
    made_by = [
        step.get("created_by", "") for step in config.get("history", ()) if not step.get("empty_layer")
    ]
    made_by += [""] * len(manifest["layers"])
    layers = tuple(
        StoredLayer(Digest(entry["digest"]), int(entry["size"]), text)
        for entry, text in zip(manifest["layers"], made_by, strict=False)
    )
    name = notes_of(entries[0]).get("io.containerd.image.name", "")
    return StoredImage(path, digest, config_digest, name, config, layers, tuple(entries), files)


def notes_of(entry: Mapping[str, Any]) -> Mapping[str, str]:
    """Annotations of an index's entry."""
    return entry.get("annotations") or {}


def read_file(files: LayoutFiles, name: str) -> bytes:
    """A file of a layout. ``LookupError`` if it is absent."""
    with files.open(name) as stream:
        return stream.read()


def _read_checked(files: LayoutFiles, digest: Digest, what: str) -> bytes:
    data = read_file(files, blob_path(digest))
    if digest_bytes(data) != digest:
        raise ValueError(f"the {what} {digest} has the digest {digest_bytes(data)}")
    return data


def _read_json(files: LayoutFiles, digest: Digest, what: str) -> Any:
    return json.loads(_read_checked(files, digest, what))
