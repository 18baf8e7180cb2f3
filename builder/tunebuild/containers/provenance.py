"""Reads what an image says of where it came from, out of a file or out of a container runtime."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from tunebuild.containers.find import find_container_runtime
from tunebuild.containers.runtime import ContainerRuntime
from tunebuild.errors import TunebuildError, fail
from tunebuild.image.oci.reading import images_near, open_archive
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import BUNDLE, PROVENANCE


def read_provenance(image: str) -> dict[str, Any]:
    """``spec`` (the effective spec) and ``inputs`` (by stage) of an image; raises as the next one does."""
    provenance: dict[str, Any] = json.loads(read_record(image, PROVENANCE))
    return provenance


def is_file(image: str) -> bool:
    """Whether a text means an archive or a layout, not the name of an image that a runtime has."""
    return Path(image).exists() or image.endswith(".tar") or image.startswith((".", "/", "~"))


def identity_of(image: str) -> tuple[str, str]:
    """What identifies an image, and its name: the digest that a build prints, or a runtime's id.

    A runtime does not tell the digest of what it loaded, and may have two images of one short name.
    """
    if is_file(image):
        return "digest", open_archive(Path(image)).digest
    runtime, reference = _in_runtime(image)
    return "id", f"{runtime.image_id(reference)} of {reference.full_name} in {runtime.name}"


def read_record(image: str, wanted: str) -> bytes:
    """A file below ``build/``: the provenance, the report or the card.

    Args:
        image: an archive, a layout, or the name of an image that a runtime has.
        wanted: the file's name.

    Raises:
        TunebuildError: there is no such image, or it is not one of ours.
    """
    content = find_record(image, wanted)
    if content is None:
        raise fail("no-provenance", f"{image} holds no {wanted} of tunebuild", "did tunebuild build it?")
    return content


def find_record(image: str, wanted: str) -> bytes | None:
    """As :func:`read_record`; ``None`` if the image has no such file."""
    prefix = f"{BUNDLE}/build"
    if is_file(image):
        files = open_archive(Path(image)).files(prefix)
    else:
        runtime, reference = _in_runtime(image)
        files = runtime.files(reference, prefix)
    with closing(files):  # now, not when it is collected: a runtime has a container for it
        return next((content for name, content in files if name == wanted), None)


def _in_runtime(image: str) -> tuple[ContainerRuntime, ImageReference]:
    """The runtime that has an image. What leads into a directory may be meant as a path: that is told too."""
    try:
        reference = ImageReference.parse(image)
        runtime = find_container_runtime()
        if runtime.image_id(reference) is None:
            raise fail("no-image", f"{runtime.name} has no image {reference}", "load it first")
    except TunebuildError as error:
        path = Path(image)
        if len(path.parts) == 1 or not path.parent.is_dir():
            raise
        why = error.diagnostics[0].message
        raise fail(
            "no-image", f"there is no file {image}, and no such image: {why}", images_near(path)
        ) from None
    return runtime, reference
