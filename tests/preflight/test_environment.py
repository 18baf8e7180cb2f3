"""What a training needs of its environment is asked for before rows are read and a base is fetched."""

from __future__ import annotations

import json

import pytest

from support.models import save_base
from support.rows import PAIRS
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.run import build, measured
from tunebuild.errors import TunebuildError
from tunebuild.preflight import environment
from tunebuild.spec import load_spec
from tunebuild.store import Silent, Store

SPEC = """\
apiVersion: tunebuild/v1
name: wanting
data: {train: [{path: rows.jsonl, format: qa}]}
model: {base: org/model}
prompt: {template: chatml}
tuning: {method: lora, lora: {r: 4}, epochs: 1, batch_size: 5, compute_dtype: float32}
evaluation: {samples: 0}
"""


def pipeline(root, *overrides):
    rows = (json.dumps({"question": q, "answer": a}) for q, a in PAIRS)
    (root / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows))
    (root / "spec.yaml").write_text(SPEC)
    return Pipeline(load_spec(root / "spec.yaml", overrides), Store(root / "store"))


def nothing(stage):
    raise AssertionError(f"{stage} began")


SPLIT = ("tuning.processes=2", "tuning.shard=true")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tuning.report_to=[wandb]"], "tuning.report_to: wandb is not installed; pip install wandb"),
        # What it writes beside the checkpoints would be gone with them.
        (["tuning.report_to=[tensorboard]"], "tuning.report_to: TENSORBOARD_LOGGING_DIR is not set"),
        ([*SPLIT, "data.eval.fraction=0.2"], "tuning.shard: with rows that are held out it needs torch 2.13"),
        ([*SPLIT, "data.eval.files=[{path: rows.jsonl}]"], "and this is 2.12.1; hold out none"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_read(tmp_path, monkeypatch, overrides, message):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    monkeypatch.setattr(environment, "version", lambda name: "2.12.1")
    monkeypatch.setattr(environment, "find_spec", lambda name: None if name == "wandb" else name)
    for run in (build, measured):
        with pytest.raises(TunebuildError) as refused:
            run(pipeline(tmp_path, *overrides), nothing)
        assert message in str(refused.value)


def test_an_older_torch_splits_what_is_not_evaluated(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "version", lambda name: "2.12.1")
    environment.check_environment(pipeline(tmp_path, *SPLIT).spec)


@pytest.mark.slow
def test_a_training_that_is_done_needs_no_reporter(tmp_path, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    save_base("llama", tmp_path / "base")
    spec = (tmp_path, "model.base=./base")
    records = measured(pipeline(*spec), lambda stage: Silent())
    assert measured(pipeline(*spec, "tuning.report_to=[tensorboard]"), lambda stage: Silent()) == records
