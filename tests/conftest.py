"""Marks tests by where they are: ``slow`` for ``make quick``, ``alone`` for what bears no test beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
#: What uses a container runtime, the toy example's image in one, or a clock.
_ALONE = (
    "cli/test_chat.py",
    "client",
    "containers",
    "e2e",
    "image/test_container.py",
    "publish",
    "serve",
)
#: What trains, merges or builds.
_SLOW = (
    "build",
    "cli/test_build.py",
    "cli/test_installed.py",
    "cli/test_serving.py",
    "evaluate",
    "export",
    "image/test_debian.py",
    "image/test_wheels.py",
    "merge",
    "train/distributed",
    "train/launch",
    "train/loop",
    "train/model",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(_TESTS)
        if any(place.is_relative_to(path) for path in _ALONE) or item.get_closest_marker("engine"):
            item.add_marker(pytest.mark.alone)
        if any(place.is_relative_to(path) for path in _SLOW):
            item.add_marker(pytest.mark.slow)
