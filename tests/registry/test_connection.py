"""Mirrors of ``registries.conf`` serve reading, in its order."""

from pathlib import Path

import pytest

from tunebuild.errors import TunebuildError
from tunebuild.registry import Options, Registries

_CONFIG = """
[[registry]]
prefix = "example.com"
location = "example.com"
[[registry.mirror]]
location = "mirror.one/cache"
[[registry.mirror]]
location = "mirror.two"

[[registry]]
prefix = "example.com/team"
location = "moved.example.com/team2"

[[registry]]
location = "bad.example.com"
blocked = true
"""


def _sources(tmp_path: Path, host: str, name: str) -> list[str]:
    file = tmp_path / "registries.conf"
    file.write_text(_CONFIG)
    registries = Registries(Options(mirrors=(tmp_path / "absent.conf", file)))
    return [f"{repository.host}/{repository.name}" for repository in registries.sources(host, name)]


def test_mirrors_come_first(tmp_path: Path) -> None:
    assert _sources(tmp_path, "example.com", "a/b") == [
        "mirror.one/cache/a/b",
        "mirror.two/a/b",
        "example.com/a/b",
    ]


def test_the_longest_prefix_counts(tmp_path: Path) -> None:
    assert _sources(tmp_path, "example.com", "team/x") == ["moved.example.com/team2/x", "example.com/team/x"]
    assert _sources(tmp_path, "example.com", "teams/x")[0] == "mirror.one/cache/teams/x"


def test_others_are_read_as_they_are(tmp_path: Path) -> None:
    assert _sources(tmp_path, "other.example.com", "x") == ["other.example.com/x"]


def test_blocked_registries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TunebuildError) as raised:
        _sources(tmp_path, "bad.example.com", "x")
    assert raised.value.diagnostics[0].code == "blocked-registry"
