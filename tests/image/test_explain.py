"""``tunebuild explain`` where the image is not what it expects: not there, or older than what it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from support.containers import need_runtime
from tunebuild.cli import app
from tunebuild.image.oci.archive import write_archive, write_layout
from tunebuild.image.oci.manifest import Image
from tunebuild.image.plan import ImageInputs, assemble, plan_image
from tunebuild.spec import Spec
from tunebuild.spec.canonical import effective


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


@pytest.fixture
def old(inputs: ImageInputs) -> Image:
    """An image from before there were figures. Its provenance is of that time, too: it names no sources."""
    spec = {
        "apiVersion": "tunebuild/v1",
        "name": "old-bot",
        "data": {"train": [{"path": "a.jsonl"}]},
        "model": {"base": "org/model", "revision": "abc"},
    }
    limits = {"context": 2048}
    settings = {"prompt_digest": "sha256:0", "device": "cpu", "dtype": "auto", "limits": limits, "port": 80}
    provenance = {
        "spec": effective(Spec.model_validate(spec)),
        "inputs": {"image": {"reference": "old-bot:1", "settings": settings}},
    }
    (inputs.bundle / "build").mkdir()
    (inputs.bundle / "build" / "provenance.json").write_text(json.dumps(provenance))
    return assemble(plan_image(inputs))


def test_an_image_without_figures_is_summed_up_without_them(old: Image, tmp_path: Path) -> None:
    write_archive(old, tmp_path / "old.tar")
    code, said = explained(str(tmp_path / "old.tar"))
    assert code == 0, said
    assert f"digest    {old.digest}\n" in said
    assert "base      org/model at abc\n" in said
    assert "figures   not in this image, which an older tunebuild made" in said
    assert f"docker load -i {tmp_path / 'old.tar'} && docker run --rm -p 80:80 old-bot:1" in said


def test_an_image_without_figures_has_no_answers_to_print(old: Image, tmp_path: Path) -> None:
    write_archive(old, tmp_path / "old.tar")
    code, said = explained(str(tmp_path / "old.tar"), "--answers", "3")
    assert code == 1
    assert "old.tar holds no answers: an older tunebuild made it" in said


@pytest.mark.runtime
def test_a_runtimes_image_is_told_by_the_name_and_id_that_it_has_there(
    old: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = need_runtime("podman")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    runtime.load(old)
    try:
        code, said = explained(str(old.reference))
    finally:
        runtime.remove(old.reference)
    assert code == 0, said
    assert f"id        {old.config_digest} of docker.io/{old.reference} in podman\n" in said
