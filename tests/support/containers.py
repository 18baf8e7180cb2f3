"""Whether a test may ask for a container engine."""

from __future__ import annotations

import os

import pytest

from tunebuild.containers.runtime import Engine, find_engine
from tunebuild.errors import TunebuildError


def need_engine(name: str) -> Engine:
    """The engine. On CI it must be there; elsewhere a missing one skips the test, with the reason."""
    try:
        return find_engine(name)
    except TunebuildError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
