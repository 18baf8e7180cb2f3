"""A registry, a proxy before it, and the synthetic image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.images import image, inputs, make_inputs
from support.registry import FaultyProxy, docker_registry

__all__ = ["image", "inputs", "make_inputs"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Host and port of a docker-registry."""
    with docker_registry(tmp_path / "registry") as host:
        yield host


@pytest.fixture
def proxy(registry: str) -> Iterator[FaultyProxy]:
    """A proxy before the registry."""
    running = FaultyProxy(registry)
    yield running
    running.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No login and no mirror of the machine reaches the tests."""
    empty = tmp_path / "home"
    empty.mkdir()
    monkeypatch.setenv("HOME", str(empty))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return empty
