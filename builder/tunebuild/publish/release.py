"""What is published, and who publishes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tunebuild.image.oci.content import Blob, Content
from tunebuild.image.oci.layer import Layer
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.reference import ImageReference
from tunebuild.store import Progress
from tunebuild.store.digest import Digest


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

    @property
    def size(self) -> int:
        """Bytes of all blobs, equal ones once."""
        return sum(blob.size for blob in self.blobs())

    def image(self, reference: ImageReference) -> Image:
        """The runnable image under a name, for what takes images."""
        content = self.contents[0]
        *layers, config = content.blobs
        return Image(
            reference,
            tuple(Layer(blob.label, "", blob.segments, blob.digest, blob.size) for blob in layers),
            b"".join(config.read()),
            content.manifest,
        )


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing did.

    Attributes:
        name: where the image is now.
        digest: what it is known by there: of its manifest, or a container runtime's ID of it.
        notes: lines for people.
        sent: bytes of blobs that went over.
        present: bytes of blobs that were there.
        mounted: bytes of blobs that a registry took from another repository of its own.
        replaced: the digest or ID that the name stood for; ``None`` if it is new or the same.
    """

    name: str
    digest: Digest
    notes: tuple[str, ...] = ()
    sent: int = 0
    present: int = 0
    mounted: int = 0
    replaced: Digest | None = None


class Publisher(Protocol):
    """Takes a release somewhere."""

    @property
    def step(self) -> str:
        """What the progress is called."""

    def publish(self, release: Release, progress: Progress) -> Published:
        """Publish. The name changes last, when everything that it stands for is there."""
