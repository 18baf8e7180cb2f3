"""No image is made in which a secret stands, wherever it came from, and no message repeats one."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from support.images import image, inputs, make_inputs
from tunebuild.build.secret_scan import SecretScan
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.layer import Entry, FilesLayer
from tunebuild.image.plan import ImageInputs, plan_image

__all__ = ["image", "inputs", "make_inputs"]

# Made up, and put together here so that nobody's scanner finds them in this file.
AWS = "AKIA" + "QWERTZUIOPASDFGH"
GITHUB = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hI6"
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----"
TOKEN = "hf_" + base64.b64encode(bytes(range(7, 34))).decode().replace("+", "x").replace("/", "y")
SCAN = SecretScan((("HF_TOKEN", "an unusual value 5121"),), rows=True)


def _codes(inputs: ImageInputs, scan: SecretScan = SCAN) -> list[str]:
    try:
        scan.check(plan_image(inputs))
    except TunebuildError as error:
        text = "".join(d.message for d in error.diagnostics)
        assert not [s for s in (AWS, GITHUB, TOKEN, "an unusual value 5121") if s in text]
        assert {d.code for d in error.diagnostics} == {"secret-in-image"}
        return [d.message for d in error.diagnostics]
    return []


def test_an_honest_image_passes(inputs: ImageInputs) -> None:
    assert _codes(inputs) == []


@pytest.mark.parametrize("secret", [AWS, GITHUB, KEY, TOKEN, "an unusual value 5121"])
@pytest.mark.parametrize(
    "place", ["bundle.json", "prompt/prompt.json", "model/config.json", "build/provenance.json"]
)
def test_a_secret_in_a_file_is_named_with_its_place(inputs: ImageInputs, place: str, secret: str) -> None:
    file = inputs.bundle / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'{{"note": "{secret}"}}')
    (message,) = _codes(inputs)
    assert place.rpartition("/")[2] in message


@pytest.mark.parametrize("secret", [AWS, "an unusual value 5121"])
def test_settings_labels_and_history_are_searched(inputs: ImageInputs, secret: str) -> None:
    assert "the variable KEY" in _codes(replace(inputs, env=(("KEY", secret),)))[0]
    assert "the label note" in _codes(replace(inputs, labels=(("note", secret),)))[0]
    plan = plan_image(inputs)
    layer = FilesLayer("extra", f"RUN login {secret}", (Entry("srv/x", b"x"),))
    with pytest.raises(TunebuildError, match="the history of layer 'extra'"):
        SCAN.check(replace(plan, layers=(*plan.layers, layer)))


def test_rows_with_forms_that_the_spec_allows_pass_and_values_never_do(inputs: ImageInputs) -> None:
    allowed = replace(SCAN, rows=False)
    checks = inputs.bundle / "prompt" / "checks.jsonl"
    checks.write_text(AWS)
    assert _codes(inputs, allowed) == []
    assert len(_codes(inputs)) == 1
    checks.write_text("an unusual value 5121")
    assert len(_codes(inputs, allowed)) == 1
