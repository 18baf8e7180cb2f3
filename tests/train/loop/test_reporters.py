"""What is reported elsewhere is what the build records."""

from __future__ import annotations

import json

import pytest

from support.models import save_base
from support.rows import write_rows
from tunebuild.errors import TunebuildError
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.plan.settings import TrainSettings

WITHOUT = "not installed: it is among the packages of the extra 'dev'"


def recorded(root, reporter):
    """Losses by step of a training that tells a reporter, as its output records them."""
    save_base("llama", root / "base")
    write_rows(root / "base", root / "rows", held_out=True)
    tuning = TuningSpec(
        method="lora", lora=LoraSpec(r=4), epochs=2, batch_size=4, max_length=128, report_to=(reporter,)
    )
    for name in ("work", "out"):
        (root / name).mkdir()
    places = {"data": root / "rows", "base": root / "base", "work": root / "work", "out": root / "out"}
    train_adapter(TrainSettings(tuning, "cpu", "float32"), **places, progress=Silent())
    lines = [json.loads(line) for line in (root / "out" / "metrics.jsonl").read_text().splitlines()]
    return {
        name: {line["step"]: line[name] for line in lines if name in line} for name in ("loss", "eval_loss")
    }


def test_tensorboard_has_the_losses_that_are_recorded(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason=WITHOUT)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    losses = recorded(tmp_path, "tensorboard")
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    for name, tag in (("loss", "train/loss"), ("eval_loss", "eval/loss")):
        told = {event.step: event.value for event in board.Scalars(tag)}
        assert len(told) >= 2
        assert told == pytest.approx(losses[name], rel=1e-6)  # which it keeps in 32 bits


def test_mlflow_has_the_losses_that_are_recorded(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason=WITHOUT)
    store = (tmp_path / "runs").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its databases need more packages
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    losses = recorded(tmp_path, "mlflow")
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    for name, values in losses.items():
        told = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
        assert len(told) >= 2
        assert told == values


def test_a_reporter_that_fails_is_named(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason=WITHOUT)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at.all")
    with pytest.raises(TunebuildError, match=r"tuning\.report_to: mlflow failed: .*nowhere"):
        recorded(tmp_path, "mlflow")
