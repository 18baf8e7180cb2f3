"""Marks tests by where they are: ``slow`` is what ``make quick`` leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
#: What trains, merges or builds, serves a model, or uses a container runtime.
_SLOW = (
    "build",
    "cli/test_build.py",
    "cli/test_chat.py",
    "cli/test_installed.py",
    "cli/test_serving.py",
    "client",
    "containers",
    "e2e",
    "evaluate",
    "export",
    "image/test_container.py",
    "image/test_debian.py",
    "image/test_wheels.py",
    "merge",
    "publish",
    "serve",
    "train/distributed",
    "train/launch",
    "train/loop",
    "train/model",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(_TESTS)
        if any(place.is_relative_to(path) for path in _SLOW) or item.get_closest_marker("runtime"):
            item.add_marker(pytest.mark.slow)
