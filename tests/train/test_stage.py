"""The training stage's key: everything that decides what is trained, and nothing else."""

from __future__ import annotations

import json

import pytest

from tunebuild.models.base_model import BaseModel
from tunebuild.spec.tuning import TuningSpec
from tunebuild.store import scan
from tunebuild.store.stage import key_of
from tunebuild.train.plan.settings import TrainSettings
from tunebuild.train.stage import TrainStage


@pytest.fixture
def stage(tmp_path):
    """Of a base and rows that need not be real: a key reads digests alone."""
    base, data = tmp_path / "base", tmp_path / "data"
    for directory in (base, data / "prompt"):
        directory.mkdir(parents=True)
    (base / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    )
    (base / "model.safetensors").write_bytes(b"weights")
    for name in ("train.arrow", "eval.arrow", "stats.json", "prompt/template.jinja"):
        (data / name).write_bytes(b"one")

    def make(**changes):
        settings = TrainSettings(TuningSpec(**changes), "cpu", "float32")
        return TrainStage(settings, scan(data), BaseModel(base, scan(base).files))

    return tmp_path, make


@pytest.mark.parametrize(
    "name", ["data/train.arrow", "data/eval.arrow", "base/model.safetensors", "base/config.json"]
)
def test_rows_and_base_are_part_of_the_key(stage, name):
    root, make = stage
    before = key_of(make())
    file = root / name
    file.write_bytes(file.read_bytes() + b" ")
    assert key_of(make()) != before


def test_rows_that_appear_change_the_key(stage):
    root, make = stage
    with_held_out = key_of(make())
    (root / "data" / "eval.arrow").unlink()
    assert key_of(make()) != with_held_out


@pytest.mark.parametrize("name", ["data/stats.json", "data/prompt/template.jinja"])
def test_what_is_not_trained_on_is_not_part_of_the_key(stage, name):
    """So an edit of the template that leaves every token as it was trains nothing again."""
    root, make = stage
    before = key_of(make())
    (root / name).write_bytes(b"two")
    assert key_of(make()) == before


@pytest.mark.parametrize(
    ("changes", "same"), [({"seed": 8}, False), ({"epochs": 9}, False), ({"checkpoints": 9}, True)], ids=str
)
def test_settings_are_part_of_the_key_unless_the_result_is_the_same(stage, changes, same):
    _, make = stage
    assert (key_of(make(**changes)) == key_of(make())) == same
