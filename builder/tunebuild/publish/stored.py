"""A stored image as something to publish: its blobs stay in the archive, and are read there."""

from __future__ import annotations

from pathlib import Path

from tunebuild.errors import fail
from tunebuild.image.oci.reading import open_archive
from tunebuild.image.oci.reference import ImageReference
from tunebuild.publish.release import Release


def release_of(path: Path) -> tuple[Release, ImageReference | None]:
    """What an archive or a layout holds, and the name that it was written under.

    Raises:
        TunebuildError: ``no-image`` or ``bad-archive``.
    """
    image = open_archive(path)
    name = ImageReference.parse(image.name) if image.name else None
    return Release(image.contents()), name


def named_release_of(path: Path) -> tuple[Release, ImageReference]:
    """What an archive or a layout holds, for what needs a name.

    Raises:
        TunebuildError: ``no-image`` or ``bad-archive``; or it does not say what it is called.
    """
    release, name = release_of(path)
    if name is None:
        hint = "'docker load' or 'podman load' take it without a name"
        raise fail("bad-archive", f"{path} does not say what the image is called", hint)
    return release, name
