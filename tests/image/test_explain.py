"""``tunebuild explain`` where the image is not what it expects."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tunebuild.cli import app
from tunebuild.image.archive import write_archive, write_layout
from tunebuild.image.oci import Image


def explained(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["explain", *arguments], standalone_mode=False)
    return done.exit_code, done.output + str(done.exception or "")


@pytest.mark.parametrize("name", ["dist/none", "dist/None", "./dist/none", "dist/none.tar", "dist"])
def test_a_path_to_no_image_names_the_images_near_it(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    Path("dist", "bot-report").mkdir(parents=True)
    write_archive(image, Path("dist/bot.tar"))
    write_layout(image, Path("dist/layout"))
    code, said = explained(name)
    assert code == 1
    expected = "there is no file dist/none" if name == "dist/none" else str(Path(name))
    assert expected in said
    assert "dist/bot.tar" in said
    assert "dist/layout" in said
    assert "report" not in said


def test_a_name_that_leads_into_no_directory_stays_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("team/none-of-ours:1", "none-of-ours"):
        assert "there is no file" not in explained(name)[1]
