"""An image in a registry, read as one on disk is: what is asked for is fetched, weights are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from tunebuild.errors import fail
from tunebuild.image.oci.layer import FileRange
from tunebuild.image.oci.manifest import blob_path, descriptor, index_json
from tunebuild.image.oci.reading import StoredImage, open_files
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import TEXT_LAYERS
from tunebuild.registry import Repository
from tunebuild.store.digest import Digest


def open_remote(repository: Repository, reference: ImageReference, scratch: Path) -> StoredImage:
    """Open an image by tag or digest; of its layers, those that hold texts.

    Args:
        repository: where it is.
        reference: its name.
        scratch: an empty directory for what is fetched.

    Raises:
        TunebuildError: ``no-image``; or what the registry answers.
    """
    found = repository.get_manifest(reference.digest or reference.tag)
    if found is None:
        raise fail("no-image", f"{repository.host} has no {reference}", "is it pushed, and to this name?")
    entries = [descriptor(found.media_type, found.digest, len(found.data))]
    entries += [
        {key: entry[key] for key in ("mediaType", "digest", "size", "artifactType") if key in entry}
        for entry in repository.referrers(found.digest)
    ]
    image = open_files(Path(str(reference)), _RemoteFiles(repository, entries, scratch))
    texts = tuple(layer for layer in image.layers if layer.created_by in TEXT_LAYERS)
    return replace(image, layers=texts or image.layers)


class _RemoteFiles:
    """The files of a layout that is made of a repository."""

    def __init__(self, repository: Repository, entries: list[dict[str, Any]], scratch: Path) -> None:
        self._repository = repository
        self._scratch = scratch
        self._entries = {blob_path(Digest(entry["digest"])): entry for entry in entries}
        self._sizes: dict[str, int] = {}
        (scratch / "index.json").write_bytes(index_json(entries))

    def names(self) -> frozenset[str]:
        """What is certain to be there."""
        return frozenset(("index.json", *self._entries))

    def open(self, name: str) -> BinaryIO:
        """A stream over a file, fetched first."""
        return self._fetched(name).open("rb")

    def place(self, name: str) -> FileRange:
        """Where a file's bytes are, fetched first."""
        path = self._fetched(name)
        return FileRange(path, 0, path.stat().st_size)

    def size(self, name: str) -> int:
        """Length in bytes."""
        return self._fetched(name).stat().st_size

    def _fetched(self, name: str) -> Path:
        digest = Digest("sha256:" + name.rpartition("/")[2])
        path = self._scratch / name.rpartition("/")[2]
        if path.exists():
            return path
        if name in self._entries:
            manifest = self._repository.get_manifest(digest)
            if manifest is None:
                raise LookupError(f"there is no manifest {digest}")
            path.write_bytes(manifest.data)
            for blob in (*json.loads(manifest.data)["layers"], json.loads(manifest.data)["config"]):
                self._sizes[blob["digest"]] = blob["size"]
        elif digest in self._sizes:
            self._repository.download(digest, self._sizes[digest], path)
        else:
            raise LookupError(f"there is no {name}")
        return path
