"""What passed the check is remembered, and a plan works where it cannot be done."""

from __future__ import annotations

import json

import pytest

from support.models import save_base
from tunebuild.build.checks import check_base
from tunebuild.build.pipeline import Pipeline
from tunebuild.errors import TunebuildError
from tunebuild.preflight import stage as checked
from tunebuild.spec import load_spec
from tunebuild.store import Store

SPEC = """\
apiVersion: tunebuild/v1
name: tiny
data:
  train: [{path: rows.csv, format: prompt_completion}]
model: {base: ./base}
tuning: {method: lora}
"""


class _Said:
    def __init__(self):
        self.lines = []

    def __call__(self, stage):
        return self

    def step(self, done, total, note=""):
        pass

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def pipeline(tmp_path):
    save_base("llama", tmp_path / "base")
    (tmp_path / "rows.csv").write_text("prompt,completion\na,b\n")
    (tmp_path / "spec.yaml").write_text(SPEC)
    return Pipeline(load_spec(tmp_path / "spec.yaml"), Store(tmp_path / "store"))


def test_check_is_done_once(pipeline, monkeypatch):
    asked = []
    monkeypatch.setattr(checked, "check_architecture", lambda *args, **options: asked.append(args))
    said = _Said()
    check_base(pipeline, said)
    check_base(pipeline, said)
    assert len(asked) == 1
    assert not said.lines


def test_plan_without_torch_says_that_nothing_was_checked(pipeline, monkeypatch):
    monkeypatch.setattr("tunebuild.build.checks.is_there", lambda name: False)
    monkeypatch.setattr(checked, "check_architecture", lambda *args, **options: pytest.fail("was run"))
    said = _Said()
    check_base(pipeline, said)
    assert "torch" in said.lines[0]


def test_files_are_looked_at_without_torch(pipeline, monkeypatch):
    monkeypatch.setattr("tunebuild.build.checks.is_there", lambda name: False)
    file = pipeline.base.directory / "config.json"
    quantization = {"quantization_config": {"quant_method": "awq"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | quantization))
    with pytest.raises(TunebuildError, match="awq"):
        check_base(pipeline, _Said())
