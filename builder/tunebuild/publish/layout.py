"""Publishes to a directory, an OCI layout: an edit writes only what changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunebuild.image.oci.archive import write_layout
from tunebuild.image.oci.reference import ImageReference
from tunebuild.publish._disk import publish_to_disk
from tunebuild.publish.release import Published, Release
from tunebuild.store import Progress


@dataclass(frozen=True, slots=True)
class LayoutPublisher:
    """A :class:`Publisher` to a directory, an OCI layout: an edit writes only what changed.

    Attributes:
        path: where to.
        reference: the image's name, which is in the layout, too.
        step: what the progress is called.
    """

    path: Path
    reference: ImageReference
    step: str = "layout"

    def publish(self, release: Release, progress: Progress) -> Published:
        """Write what is not there yet. Raises as :func:`write_layout`."""
        return publish_to_disk(write_layout, self.path, self.reference, release, progress)
