"""The synthetic image and the container runtimes that tests of containers share with those of images."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from support.images import image, loaded, make_inputs, runtime
from tunebuild.image.plan import ImageInputs

__all__ = ["runtime", "image", "inputs", "loaded", "make_inputs"]


@pytest.fixture
def inputs(tmp_path: Path, make_inputs: Callable[..., ImageInputs]) -> ImageInputs:
    """Under a name of its own: other tests use the same runtime at the same time."""
    return make_inputs(tmp_path / "in", f"demo-{uuid.uuid4().hex[:12]}")
