"""Reads an image back from an archive or a layout: its labels, its files, and whether every byte is right.

No container runtime is needed, so ``verify`` and ``explain`` work on a build machine that has none.
"""

from __future__ import annotations

import json
import posixpath
import shutil
import tarfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from tunebuild.errors import Diagnostic, TunebuildError, fail
from tunebuild.image.oci.archive import layout_files
from tunebuild.image.oci.blobs import ArchiveFiles, DirectoryFiles, check_digest, check_framing
from tunebuild.image.oci.content import OUTPUT, Content, read_content
from tunebuild.image.oci.layer import FileRange, Layer
from tunebuild.image.oci.manifest import Image, blob_path
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

    ``config`` is the parsed image config; ``index`` what the layout's index lists, this image first.
    """

    place: Path
    digest: Digest
    config_digest: Digest
    name: str
    config: Mapping[str, Any]
    layers: tuple[StoredLayer, ...]
    index: tuple[Mapping[str, Any], ...]
    _files: LayoutFiles

    @property
    def labels(self) -> Mapping[str, str]:
        """The image's labels."""
        return cast(Mapping[str, str], self.config.get("config", {}).get("Labels") or {})

    def blob(self, digest: Digest) -> FileRange:
        """Where a blob's bytes are. ``LookupError`` if it is absent."""
        return self._files.place(blob_path(digest))

    @property
    def manifest(self) -> bytes:
        """The manifest's exact bytes."""
        return _read(self._files, blob_path(self.digest))

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
                    _read_checked(self._files, Digest(entry["digest"]), "manifest"),
                    self.blob,
                    _notes(entry).get(OUTPUT, ""),
                )
                for entry in entries
            )
        except (LookupError, TypeError, ValueError) as error:
            hint = "it was cut short; build or fetch it again"
            raise fail("bad-archive", f"{self.place} lacks something: {error}", hint) from error

    def referrers(self) -> tuple[Content, ...]:
        """What refers to the image or to another output. Raises as :meth:`contents`."""
        return self._contents([e for e in self.index if e.get("artifactType") and OUTPUT not in _notes(e)])

    def file(self, path: str) -> bytes | None:
        """A regular file of the image; ``None`` if there is none. Links are not followed."""
        for layer in reversed(self.layers):
            with (
                self._files.open(blob_path(layer.digest)) as blob,
                tarfile.open(fileobj=blob, mode="r:*") as tar,
            ):
                for member in tar:
                    if member.isfile() and member.name.removeprefix("./") == path:
                        stream = tar.extractfile(member)
                        assert stream is not None
                        return stream.read()
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
            if ".." in path.parts:
                raise fail("bad-archive", f"{self.place} holds a file named {name!r}", "do not use it")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as sink:
                shutil.copyfileobj(stream, sink, 1 << 20)
            path.chmod(0o755 if mode & 0o100 else 0o644)
            count += 1
        return count

    def check(self) -> None:
        """Read every blob and compare its digest with its name.

        Raises:
            TunebuildError: ``corrupt-image``, with every blob that is wrong and what it belongs to.
        """
        try:
            problems = self._problems()
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            message = f"{self.place}: one of its own files cannot be read: {error}"
            raise fail("corrupt-image", message, "copy or build the image again") from error
        if problems:
            raise TunebuildError(tuple(problems))

    def _problems(self) -> list[Diagnostic]:
        roles = {
            blob_path(blob): f"{entry.get('artifactType') or _notes(entry).get(OUTPUT, '')}"
            for entry, content in zip(self.index[1:], self.contents()[1:], strict=True)
            for blob in (content.digest, *(blob.digest for blob in content.blobs))
        }
        roles |= {blob_path(self.digest): "manifest", blob_path(self.config_digest): "config"}
        for number, layer in enumerate(self.layers, 1):
            roles[blob_path(layer.digest)] = f"layer {number} of {len(self.layers)} ({layer.created_by})"
        problems = [
            problem
            for name, role in roles.items()
            if (problem := check_digest(self._files, name, role, self.place)) is not None
        ]
        if not problems:
            problems = [*_disagreements(self), *_not_as_written(self)]
        if self.place.is_file() and (framing := check_framing(self.place)):
            problems.append(framing)
        return problems

    def _members(self, prefix: str) -> Iterator[tuple[str, BinaryIO, int]]:
        start = prefix.strip("/") + "/"
        places, seen = [(start, "")], set[str]()
        for layer in reversed(self.layers):
            with (
                self._files.open(blob_path(layer.digest)) as blob,
                tarfile.open(fileobj=blob, mode="r:*") as tar,
            ):
                for member in tar:
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
                        stream = tar.extractfile(member)
                        assert stream is not None
                        yield found, cast(BinaryIO, stream), member.mode


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
    entries = json.loads(_read(files, _INDEX))["manifests"]
    images = [e for e in entries if "artifactType" not in e and OUTPUT not in _notes(e)]
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
    name = _notes(entries[0]).get("io.containerd.image.name", "")
    return StoredImage(path, digest, config_digest, name, config, layers, tuple(entries), files)


def _notes(entry: Mapping[str, Any]) -> Mapping[str, str]:
    return entry.get("annotations") or {}


def _disagreements(image: StoredImage) -> Iterator[Any]:
    """What digests do not cover: ``manifest.json`` must name the same blobs, the config the same layers."""
    files = image._files
    layers = [layer.digest for layer in image.layers]
    hint = "the archive was changed after it was written; build it again"
    diff_ids = image.config.get("rootfs", {}).get("diff_ids", [])
    if len(diff_ids) != len(layers):
        yield from fail("corrupt-image", f"{image.place}: config and manifest disagree", hint).diagnostics
    for layer in image.layers:
        if files.size(blob_path(layer.digest)) != layer.size:
            message = f"{image.place}: the manifest has another size for {layer.digest}"
            yield from fail("corrupt-image", message, hint).diagnostics
    if "manifest.json" in files.names():
        (docker,) = json.loads(_read(files, "manifest.json"))
        same = docker["Config"] == blob_path(image.config_digest)
        if not same or docker["Layers"] != [blob_path(digest) for digest in layers]:
            message = f"{image.place}: manifest.json and index.json name different images"
            yield from fail("corrupt-image", message, hint).diagnostics


def _not_as_written(image: StoredImage) -> Iterator[Any]:
    """The few files that no digest covers, if we wrote them: they follow from those that one covers."""
    files = image._files
    if "manifest.json" not in files.names() or "org.tunebuild.version" not in image.labels:
        return
    (docker,) = json.loads(_read(files, "manifest.json"))
    reference = ImageReference.parse(docker["RepoTags"][0])
    layers = tuple(Layer("", "", (), x.digest, x.size) for x in image.layers)
    config, manifest = _read(files, blob_path(image.config_digest)), image.manifest
    whole = Image(reference, layers, config, manifest)
    for file in layout_files(whole, image.contents()[1:])[-3:]:
        if _read(files, file.path) != b"".join(s for s in file.segments if isinstance(s, bytes)):
            hint = "the archive was changed after it was written; build it again"
            message = f"{image.place}: {file.path} is not what was written"
            yield from fail("corrupt-image", message, hint).diagnostics


def _read(files: LayoutFiles, name: str) -> bytes:
    with files.open(name) as stream:
        return stream.read()


def _read_checked(files: LayoutFiles, digest: Digest, what: str) -> bytes:
    data = _read(files, blob_path(digest))
    if digest_bytes(data) != digest:
        raise ValueError(f"the {what} {digest} has the digest {digest_bytes(data)}")
    return data


def _read_json(files: LayoutFiles, digest: Digest, what: str) -> Any:
    return json.loads(_read_checked(files, digest, what))
