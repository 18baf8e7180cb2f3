"""What is published: manifests with their blobs, each blob a list of segments, read where they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tunebuild.image.oci.layer import FileRange, Segment, read_segments, size_of
from tunebuild.image.oci.manifest import MANIFEST_TYPE, Image
from tunebuild.store import Progress
from tunebuild.store.digest import Digest, digest_bytes


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
        tag: what it is called in its repository; not at all if empty.
        subject: the manifest that it refers to; ``None`` for an image.
        artifact_type: of a referrer.
        annotations: of a referrer, which lists of referrers repeat.
        media_type: of the manifest.
    """

    manifest: bytes
    blobs: tuple[Blob, ...]
    tag: str = ""
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    media_type: str = MANIFEST_TYPE

    @property
    def digest(self) -> Digest:
        """What the manifest is known by."""
        return digest_bytes(self.manifest)

    @classmethod
    def of_image(cls, image: Image, tag: str = "") -> Content:
        """An image's manifest, config and layers."""
        config = Blob(image.config_digest, (image.config,), "config")
        layers = (Blob(layer.digest, layer.segments, layer.name) for layer in image.layers)
        return cls(image.manifest, (*layers, config), tag)

    def descriptor(self) -> dict[str, object]:
        """How an index names it."""
        found: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.manifest),
        }
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found


@dataclass(frozen=True, slots=True)
class Release:
    """Everything that one build publishes: the runnable image first; referrers after their subjects."""

    contents: tuple[Content, ...]

    @property
    def digest(self) -> Digest:
        """The runnable image's digest, which ``build`` printed."""
        return self.contents[0].digest

    def blobs(self) -> tuple[Blob, ...]:
        """All blobs, equal ones once."""
        return tuple({blob.digest: blob for content in self.contents for blob in content.blobs}.values())


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing did.

    Attributes:
        name: where the image is now, digest included.
        sent: bytes of blobs that went over.
        present: bytes of blobs that were there.
        mounted: bytes of blobs that the registry took from another repository of its own.
        replaced: the digest that the tag stood for; ``None`` if it is new or the same.
    """

    name: str
    sent: int
    present: int
    mounted: int
    replaced: Digest | None = None


class Publisher(Protocol):
    """Takes a release somewhere."""

    def publish(self, release: Release, progress: Progress) -> Published:
        """Publish. The tag changes last, when everything that it names is there."""


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
