"""Whether a test may ask for a container runtime."""

from __future__ import annotations

import os

import pytest

from tunebuild.containers.find import find_container_runtime
from tunebuild.containers.runtime import ContainerRuntime
from tunebuild.errors import TunebuildError


def need_runtime(name: str) -> ContainerRuntime:
    """The runtime. On CI it must be there; elsewhere a missing one skips the test, with the reason."""
    try:
        return find_container_runtime(name)
    except TunebuildError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
