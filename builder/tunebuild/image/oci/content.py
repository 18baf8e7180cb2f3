"""Manifests with their blobs, each blob a list of segments, read where they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunebuild.image.oci.layer import FileRange, Segment, read_segments, size_of
from tunebuild.image.oci.manifest import (
    EMPTY_TYPE,
    MANIFEST_TYPE,
    Image,
    Variables,
    descriptor,
)
from tunebuild.store.digest import Digest, canonical_json, digest_bytes

OUTPUT = "org.tunebuild.output"
"""Annotation: which output of a build a manifest is, where it is not the runnable image."""

_EMPTY = b"{}"


@dataclass(frozen=True, slots=True)
class Blob:
    """Content known by its digest. ``label`` is for people."""

    digest: Digest
    segments: tuple[Segment, ...]
    label: str

    @classmethod
    def of_bytes(cls, data: bytes, label: str) -> Blob:
        """A blob in memory."""
        return cls(digest_bytes(data), (data,), label)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return sum(size_of(segment) for segment in self.segments)

    def read(self, offset: int = 0) -> Iterator[bytes]:
        """The content from ``offset`` on, in blocks; nothing before it is read."""
        yield from read_segments(_from(self.segments, offset))


@dataclass(frozen=True, slots=True)
class Content:
    """A manifest and the blobs that it names.

    Attributes:
        manifest: its exact bytes.
        blobs: config and layers.
        output: which output of the build it is, such as ``weights``; empty for the runnable image and for
            what refers to others. Its tag is that of the image, a dash and this.
        subject: the manifest that it refers to; ``None`` for an image.
        artifact_type: of an artifact.
        annotations: of a referrer, which lists of referrers repeat.
        media_type: of the manifest.
    """

    manifest: bytes
    blobs: tuple[Blob, ...]
    output: str = ""
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: Variables = ()
    media_type: str = MANIFEST_TYPE

    @property
    def digest(self) -> Digest:
        """What the manifest is known by."""
        return digest_bytes(self.manifest)

    @property
    def size(self) -> int:
        """Bytes of its blobs."""
        return sum(blob.size for blob in self.blobs)

    @classmethod
    def of_image(cls, image: Image) -> Content:
        """An image's manifest, config and layers."""
        config = Blob(image.config_digest, (image.config,), "config")
        layers = (Blob(layer.digest, layer.segments, layer.name) for layer in image.layers)
        return cls(image.manifest, (*layers, config))

    def tag(self, of_image: str) -> str:
        """What it is called beside an image of a tag; empty for what has no name."""
        if self.subject is not None:
            return ""
        return f"{of_image}-{self.output}" if self.output else of_image

    def descriptor(self) -> dict[str, Any]:
        """How an index names it."""
        found = descriptor(self.media_type, self.digest, len(self.manifest))
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found


def make_artifact(
    artifact_type: str,
    files: Sequence[tuple[str, bytes]],
    subject: Content,
    annotations: Variables = (),
) -> Content:
    """An OCI 1.1 artifact that refers to a manifest.

    Args:
        artifact_type: what it is.
        files: media type and content of each layer.
        subject: what it is about.
        annotations: of the manifest.
    """
    empty = Blob.of_bytes(_EMPTY, "config")
    layers = [(kind, Blob.of_bytes(data, artifact_type)) for kind, data in files]
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": artifact_type,
        "config": descriptor(EMPTY_TYPE, empty.digest, empty.size),
        "layers": [descriptor(kind, blob.digest, blob.size) for kind, blob in layers],
        "subject": descriptor(subject.media_type, subject.digest, len(subject.manifest)),
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    blobs = (*(blob for _, blob in layers), empty)
    data = canonical_json(manifest)
    return Content(data, blobs, "", subject.digest, artifact_type, annotations)


def read_content(manifest: bytes, place: Any, output: str = "") -> Content:
    """A stored manifest with its blobs.

    Args:
        manifest: its exact bytes.
        place: gives a blob's segment by its digest, or raises ``LookupError``.
        output: which output of a build it is.
    """
    found = json.loads(manifest)
    numbered = ((entry, f"layer {number}") for number, entry in enumerate(found["layers"], 1))
    blobs = {
        Digest(entry["digest"]): Blob(Digest(entry["digest"]), (place(Digest(entry["digest"])),), label)
        for entry, label in (*numbered, (found["config"], "config"))
    }
    subject = found.get("subject")
    return Content(
        manifest,
        tuple(blobs.values()),
        output,
        Digest(subject["digest"]) if subject else None,
        found.get("artifactType", ""),
        tuple((found.get("annotations") or {}).items()) if subject else (),
        found.get("mediaType", MANIFEST_TYPE),
    )


def _from(segments: tuple[Segment, ...], offset: int) -> Iterator[Segment]:
    for segment in segments:
        size = size_of(segment)
        if offset >= size:
            offset -= size
        elif isinstance(segment, FileRange):
            yield FileRange(segment.path, segment.offset + offset, size - offset)
            offset = 0
        else:
            yield segment[offset:]
            offset = 0
