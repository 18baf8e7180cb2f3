"""What is published, and who publishes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tunebuild.image.oci.content import Blob, Content
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
