"""``tunebuild push``: what it prints, and what it refuses before anything is sent."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.registry import FaultyProxy
from tunebuild.image.oci.archive import write_archive
from tunebuild.image.oci.manifest import Image


def _push(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunebuild", "push", *arguments, "--store", str(tmp_path / "store")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def archive(image: Image, tmp_path: Path) -> Path:
    write_archive(image, tmp_path / "image.tar")
    return tmp_path / "image.tar"


def test_only_the_reference_with_its_digest_is_printed(
    registry: str, image: Image, archive: Path, tmp_path: Path
) -> None:
    done = _push(tmp_path, str(archive), f"{registry}/team/bot:v2", "--plain-http")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{registry}/team/bot:v2@{image.digest}\n"
    assert "MB sent" in done.stderr
    again = _push(tmp_path, str(archive), f"{registry}/other/bot", "--plain-http")
    assert again.stdout == f"{registry}/other/bot:latest@{image.digest}\n"
    assert "mounted from other repositories" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bot"], "names no registry"),
        (["registry.example.com/bot", "--plain-http"], "registries on this machine"),
        (["Bad Name"], "is not an image reference"),
        (["registry.example.com/bot@sha256:" + "0" * 64], "name a tag"),
    ],
)
def test_what_cannot_be_a_target_is_refused(
    archive: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = _push(tmp_path, str(archive), *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_truncated_archive_is_refused(proxy: FaultyProxy, archive: Path, tmp_path: Path) -> None:
    with archive.open("r+b") as file:
        file.truncate(archive.stat().st_size // 2)
    done = _push(tmp_path, str(archive), f"{proxy.host}/bot", "--plain-http")
    assert done.returncode == 1
    assert "cannot read an image" in done.stderr
    assert not proxy.requests
