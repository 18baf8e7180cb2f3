"""What an archive and a layout on disk have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tunebuild.image.oci.content import Content
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.reading import holds
from tunebuild.image.oci.reference import ImageReference
from tunebuild.publish.release import Published, Release
from tunebuild.store import Progress

Write = Callable[[Image, Path, Progress, Sequence[Content]], None]


def publish_to_disk(
    write: Write, path: Path, reference: ImageReference, release: Release, progress: Progress
) -> Published:
    """Write a release, unless the file or directory holds exactly it."""
    name = str(path)
    if holds(path, reference, [content.digest for content in release.contents]):
        return Published(name, release.digest, (f"{path} is up to date",), present=release.size)
    image, others = release.image(reference), release.contents[1:]
    write(image, path, progress, others)
    count = f", {len(release.contents)} manifests" if others else ""
    notes = [f"{path}, {release.size / 1e6:,.1f} MB{count}"]
    notes += [f"{content.output}: {content.digest}" for content in others if content.output]
    return Published(name, release.digest, tuple(notes), sent=release.size)
