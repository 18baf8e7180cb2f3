"""All weights are trained, and what is written is what was trained, in the base's own form."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from support.killed import kill_training
from support.models import save_base
from support.rows import write_rows
from tunebuild.errors import TunebuildError
from tunebuild.evaluate.metrics import REFUSED, check_gates, measure
from tunebuild.evaluate.models import ask, choose_rows, load_merged, targets
from tunebuild.merge.run import merge_adapter
from tunebuild.merge.safetensors_io import list_tensors
from tunebuild.spec.gates import GatesSpec
from tunebuild.spec.tuning import TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop.rows import load_rows
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.model.base import load_base
from tunebuild.train.plan.settings import TrainSettings


def settings(**changes):
    options = {
        "method": "full", "epochs": 4, "batch_size": 4, "learning_rate": 2e-3, "warmup_steps": 0,
        "max_length": 128, **changes,
    }  # fmt: skip
    return TrainSettings(TuningSpec(**options), "cpu", "float32")


def train(root, name="trained", **changes):
    for directory in (f"{name}-work", name):
        (root / directory).mkdir(exist_ok=True)
    train_adapter(
        settings(**changes),
        data=root / "rows",
        base=root / "base",
        work=root / f"{name}-work",
        out=root / name,
        progress=Silent(),
    )
    lines = [json.loads(line) for line in (root / name / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def merge(root, trained="trained"):
    out = root / f"merged-{trained}"
    out.mkdir()
    merge_adapter(
        "trained", base=root / "base", trained=root / trained, out=out, progress=Silent(), shard_bytes=80_000
    )
    return out / "model"


def judge(root, model, trained="trained"):
    rows = choose_rows(load_rows(root / "rows" / "train.arrow"), 1000)
    said = [
        ask(load_base(directory, settings()).eval(), rows)
        for directory in (root / "base", root / trained / "model")
    ]
    figures = measure(*said, ask(load_merged(model, settings()), rows), targets(rows))
    check_gates(GatesSpec(), figures)
    return figures


def by_name(directory):
    return {tensor.name: tensor.read() for tensor in list_tensors(directory)}


@pytest.fixture(scope="module", params=["llama", "falcon"])
def trained(request, tmp_path_factory):
    """A base in 16 bits and several files, and all of it trained. Llama's embedding is its head, too."""
    root = tmp_path_factory.mktemp("full")
    save_base(request.param, root / "base", dtype=torch.bfloat16, shard="80KB")
    write_rows(root / "base", root / "rows")
    losses = train(root)
    assert losses[-1] < 0.9 * losses[0]
    return root


def test_full_trains_in_float32_and_saves_in_the_dtype_of_the_base(trained):
    base, whole = by_name(trained / "base"), by_name(trained / "trained" / "model")
    assert {tensor.dtype for tensor in whole.values()} == {torch.float32}
    model = merge(trained)
    merged = by_name(model)
    assert len(list(model.glob("*.safetensors"))) > 2
    assert (model / "config.json").read_bytes() == (trained / "base" / "config.json").read_bytes()
    assert merged.keys() == base.keys()
    assert whole.keys() <= base.keys()
    for name, tensor in merged.items():
        # A head that is the embedding is saved once, whatever the base does.
        expected = whole.get(name, whole.get("transformer.word_embeddings.weight"))
        assert torch.equal(tensor, expected.bfloat16()), name
        assert not torch.equal(tensor, base[name]), name
    figures = judge(trained, model)
    assert figures["merge_kl"] < 1e-3
    assert figures["eval_loss"] < figures["base_loss"]


def test_weights_of_another_training_are_refused(trained):
    other = trained / "other"
    train(trained, "other", epochs=2, seed=7, learning_rate=1e-2)
    with pytest.raises(TunebuildError, match=r"gates\.merge_") as caught:
        judge(trained, merge(trained, "other"))
    assert caught.value.exit_code == REFUSED
    (other / "model" / "model.safetensors").unlink()
    with pytest.raises(TunebuildError, match=r"lacks model.safetensors"):
        merge_adapter(
            "trained", base=trained / "base", trained=other, out=trained / "merged-other2", progress=Silent()
        )


def test_a_training_that_16_bits_cannot_hold_is_refused(trained):
    train(trained, "tiny", learning_rate=1e-6)
    with pytest.raises(TunebuildError, match=r"gates\.merge_lost"):
        judge(trained, merge(trained, "tiny"), "tiny")


def test_a_training_that_changed_nothing_is_refused(trained):
    train(trained, "none", learning_rate=1e-30)
    with pytest.raises(TunebuildError, match="training changed no weight"):
        merge(trained, "none")


@pytest.mark.parametrize("changes", [{"packing": False}, {"micro_batch_size": 1}])
def test_the_loss_does_not_depend_on_how_a_step_is_computed(tmp_path, changes):
    save_base("llama", tmp_path / "base")
    write_rows(tmp_path / "base", tmp_path / "rows")
    assert train(tmp_path, "other", epochs=2, **changes) == pytest.approx(train(tmp_path, epochs=2), rel=1e-5)


def test_killed_training_resumes_to_the_same_bytes(tmp_path):
    save_base("llama", tmp_path / "base")
    write_rows(tmp_path / "base", tmp_path / "rows")
    train(tmp_path, "whole")
    kill_training(settings(), tmp_path)
    train(tmp_path, "killed")
    assert json.loads((tmp_path / "killed" / "result.json").read_text())["resumed"]
    digests = {
        hashlib.sha256((tmp_path / name / "model" / "model.safetensors").read_bytes()).hexdigest()
        for name in ("whole", "killed")
    }
    assert len(digests) == 1
