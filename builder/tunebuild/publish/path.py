"""The publisher that a path asks for."""

from __future__ import annotations

from pathlib import Path

from tunebuild.image.oci.reference import ImageReference
from tunebuild.publish.archive import ArchivePublisher
from tunebuild.publish.layout import LayoutPublisher
from tunebuild.publish.release import Publisher


def publisher_to(path: Path, reference: ImageReference, step: str = "") -> Publisher:
    """An archive if the name ends with ``.tar``, else an OCI layout.

    Args:
        path: where to.
        reference: the image's name.
        step: what the progress is called, if not as the form is.
    """
    if path.suffix == ".tar":
        return ArchivePublisher(path, reference, step or "archive")
    return LayoutPublisher(path, reference, step or "layout")
