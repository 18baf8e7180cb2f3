"""Marks tests as slow by where they are, for ``make quick``, and groups them for several processes."""

from __future__ import annotations

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
#: What trains, merges, builds, serves or needs a container runtime.
_SLOW = (
    "build",
    "cli/test_build.py",
    "cli/test_serving.py",
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


@pytest.hookimpl(tryfirst=True)  # the scheduler of several processes reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = tuple(_TESTS / path for path in _SLOW)
    # A file's tests share its fixtures, so they run in one process. So do all files that share the built toy
    # example, and its image in a container runtime.
    toy = {item.path for item in items if "quickstart" in getattr(item, "fixturenames", ())}
    for item in items:
        if any(item.path.is_relative_to(path) for path in slow):
            item.add_marker(pytest.mark.slow)
        group = "toy" if item.path in toy else item.path.relative_to(_TESTS).as_posix()
        item.add_marker(pytest.mark.xdist_group(group))
