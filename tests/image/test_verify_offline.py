"""``tunebuild verify`` on what lies on disk: the layout and the archive alike, with nothing started."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from support.images import save_real_prompt
from tunebuild.cli import app
from tunebuild.cli.verify import _Log, _question
from tunebuild.client.checks import read_contract
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.archive import write_archive, write_layout
from tunebuild.image.plan import ImageInputs, assemble, plan_image


@pytest.fixture
def bundle(inputs: ImageInputs, tmp_path: Path) -> Path:
    return save_real_prompt(inputs, tmp_path / "base")


def verified(place: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["verify", str(place), "--offline"], standalone_mode=False)
    return done.exit_code, done.output + str(done.exception or "")


def test_a_layout_and_an_archive_are_verified_offline(
    bundle: Path, inputs: ImageInputs, tmp_path: Path
) -> None:
    image = assemble(plan_image(inputs))
    write_layout(image, tmp_path / "layout")
    write_archive(image, tmp_path / "image.tar")
    for place in (tmp_path / "layout", tmp_path / "image.tar"):
        code, said = verified(place)
        assert code == 0, said
        assert "every byte is what its digest says" in said
        assert "golden vectors reproduce" in said


def test_a_changed_template_in_an_image_is_refused(bundle: Path, inputs: ImageInputs, tmp_path: Path) -> None:
    template = bundle / "prompt.jinja"
    template.chmod(0o644)
    template.write_text(template.read_text().replace("assistant", "assistent"))
    write_layout(assemble(plan_image(inputs)), tmp_path / "layout")
    code, said = verified(tmp_path / "layout")
    assert code != 0
    assert "not the ones it was built with" in said


def test_rows_of_plain_text_alone_leave_nothing_to_ask_and_that_is_said(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = read_contract(bundle)
    _question("http://127.0.0.1:9", contract, 0.0, _Log())
    assert "there is nothing to ask" in capsys.readouterr().err
    with pytest.raises(TunebuildError, match="there is nothing to ask"):
        _question("http://127.0.0.1:9", contract, 1.0, _Log())
