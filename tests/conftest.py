"""Marks tests by where they are: ``slow`` is what ``make quick`` leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
#: What trains, merges or builds, serves a model, or uses a container runtime; but for tests marked ``quick``.
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
    "image/test_wheel_targets.py",
    "image/test_wheels.py",
    "merge",
    "publish",
    "serve",
    "spec/test_mutations.py",
    "train/distributed",
    "train/launch",
    "train/loop",
    "train/model",
)


def _is_slow(path: Path) -> bool:
    return any(path.relative_to(_TESTS).is_relative_to(slow) for slow in _SLOW)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where no slow test is asked for, do not even import files that hold no other."""
    if (
        config.option.markexpr != "not slow"
        or collection_path.suffix != ".py"
        or not _is_slow(collection_path)
    ):
        return None
    return "mark.quick" not in collection_path.read_text("utf-8") or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("quick"):
            continue
        if _is_slow(item.path) or item.get_closest_marker("runtime"):
            item.add_marker(pytest.mark.slow)
