"""A registry, and the synthetic image with settings that a server would take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.deployed import write_settings
from support.images import make_inputs
from support.registry import docker_registry
from tunebuild.image.oci.manifest import Image
from tunebuild.image.plan import ImageInputs, assemble, plan_image

__all__ = ["make_inputs"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Host and port of a docker-registry."""
    with docker_registry(tmp_path / "registry") as host:
        yield host


@pytest.fixture
def make_image(tmp_path: Path, make_inputs: Callable[..., ImageInputs]) -> Callable[..., Image]:
    """An image whose bundle has the settings that are given."""

    def make(**changes: object) -> Image:
        inputs = make_inputs(tmp_path / "in", "bot")
        write_settings(inputs.bundle, **changes)
        return assemble(plan_image(inputs))

    return make
