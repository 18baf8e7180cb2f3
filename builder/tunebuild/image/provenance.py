"""What an image says of where it came from: the spec, and each stage's own inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.image.engines import find_engine
from tunebuild.image.plan import BUNDLE
from tunebuild.image.reading import open_archive
from tunebuild.image.reference import ImageReference

FILE_NAME = "provenance.json"
"""Below ``build/`` of the bundle."""


def read_provenance(image: str) -> dict[str, Any]:
    """``spec`` (the effective spec) and ``inputs`` (by stage) of an image.

    Args:
        image: an archive, a layout, or the name of an image that an engine has.

    Raises:
        TunebuildError: there is no such image, or it is not one of ours.
    """
    prefix = f"{BUNDLE}/build"
    if Path(image).exists():
        files = open_archive(Path(image)).files(prefix)
    else:
        files = find_engine().files(ImageReference.parse(image), prefix)
    for name, content in files:
        if name == FILE_NAME:
            provenance: dict[str, Any] = json.loads(content)
            return provenance
    raise fail("no-provenance", f"{image} does not say what it was built from", "did tunebuild build it?")
