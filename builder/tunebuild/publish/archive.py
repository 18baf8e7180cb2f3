"""Publishes to one file, an OCI layout and a docker-archive at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunebuild.image.oci.archive import write_archive
from tunebuild.image.oci.reference import ImageReference
from tunebuild.publish._disk import publish_to_disk
from tunebuild.publish.release import Published, Release
from tunebuild.store import Progress


@dataclass(frozen=True, slots=True)
class ArchivePublisher:
    """A :class:`Publisher` to one file, an OCI layout and a docker-archive at once.

    Attributes:
        path: where to.
        reference: the image's name, which is in the archive, too.
        step: what the progress is called.
    """

    path: Path
    reference: ImageReference
    step: str = "archive"

    def publish(self, release: Release, progress: Progress) -> Published:
        """Write what is not there yet. Raises as :func:`write_archive`."""
        return publish_to_disk(write_archive, self.path, self.reference, release, progress)
