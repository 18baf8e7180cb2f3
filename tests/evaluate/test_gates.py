"""The gate lets the trained model through and nothing that only looks like it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.models import save_base
from support.rows import write_rows
from tunebuild.errors import TunebuildError
from tunebuild.evaluate.metrics import REFUSED, check_gates, lost_limit, measure
from tunebuild.evaluate.models import (
    Logprobs,
    ask,
    choose_rows,
    load_merged,
    load_trained,
    targets,
)
from tunebuild.merge.run import copy_base, merge_adapter
from tunebuild.spec.gates import GatesSpec, LossAtMost, ShareAtLeast
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop.rows import load_rows
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.plan.settings import TrainSettings

TUNING = TuningSpec(epochs=10, batch_size=5, learning_rate=1e-2, lora=LoraSpec(r=8), max_length=128)
SETTINGS = TrainSettings(TUNING, "cpu", "float32")
ADAPTER = Path("adapter", "adapter_model.safetensors")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A trained adapter, its base in several files, and what the trained model says."""
    work = tmp_path_factory.mktemp("gates")
    save_base("llama", work / "base", shard="80KB", num_key_value_heads=4)
    write_rows(work / "base", work / "rows")
    for name in ("work", "trained"):
        (work / name).mkdir()
    train_adapter(
        SETTINGS,
        data=work / "rows",
        base=work / "base",
        work=work / "work",
        out=work / "trained",
        progress=Silent(),
    )
    return work


@pytest.fixture(scope="module")
def truth(work):
    rows = choose_rows(load_rows(work / "rows" / "train.arrow"), 1000)
    model = load_trained(work / "base", work / "trained" / "adapter", SETTINGS)
    with model.disable_adapter():
        base = ask(model, rows)
    return rows, base, ask(model, rows)


def merged(work, out, *, base=None, trained=None, strategy="dequantized"):
    out.mkdir()
    merge_adapter(
        strategy,
        base=base or work / "base",
        trained=trained or work / "trained",
        out=out,
        progress=Silent(),
        shard_bytes=80_000,
    )
    return out / "model"


def judge(model, truth, gates=None, adapter=None):
    rows, base, trained = truth
    figures = measure(base, trained, ask(load_merged(model, SETTINGS, adapter), rows), targets(rows))
    check_gates(gates or GatesSpec(), figures)
    return figures


def spoilt(work, directory):
    """A copy of the trained adapter whose tensors and settings may be changed."""
    shutil.copytree(work / "trained", directory)
    return load_file(directory / ADAPTER), directory


def test_the_trained_model_passes(work, truth, tmp_path):
    figures = judge(merged(work, tmp_path / "out"), truth)
    assert figures["merge_kl"] < 1e-3
    assert figures["merge_top1"] > 0.98
    assert figures["merge_lost"] < 0.01
    assert figures["eval_loss"] < figures["base_loss"] - 1  # training had an effect


def test_a_merge_that_changed_nothing_is_refused(work, truth, tmp_path):
    with pytest.raises(TunebuildError, match=r"gates\.merge_lost") as caught:
        judge(work / "base", truth)
    assert caught.value.exit_code == REFUSED


def test_a_wrong_alpha_is_refused(work, truth, tmp_path):
    _, trained = spoilt(work, tmp_path / "trained")
    path = trained / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] * 4}))
    with pytest.raises(TunebuildError, match=r"gates\.merge_"):
        judge(merged(work, tmp_path / "out", trained=trained), truth)


def test_swapped_factors_are_refused(work, truth, tmp_path):
    tensors, trained = spoilt(work, tmp_path / "trained")
    swapped = 0
    for name in [n for n in tensors if "lora_A" in n]:
        a, b = tensors[name], tensors[name.replace("lora_A", "lora_B")]
        if a.shape[1] == b.shape[0]:  # a square layer: the shapes do not give it away
            tensors[name], tensors[name.replace("lora_A", "lora_B")] = b.T.contiguous(), a.T.contiguous()
            swapped += 1
    assert swapped
    save_file(tensors, trained / ADAPTER)
    with pytest.raises(TunebuildError, match=r"gates\.merge_"):
        judge(merged(work, tmp_path / "out", trained=trained), truth)


def test_an_adapter_of_another_base_is_refused(work, truth, tmp_path):
    save_base("llama", tmp_path / "other", num_key_value_heads=4, initializer_range=0.05)
    with pytest.raises(TunebuildError, match=r"gates\.merge_"):
        judge(merged(work, tmp_path / "out", base=tmp_path / "other"), truth)


def test_shards_that_were_passed_over_are_refused(work, truth, tmp_path):
    model = merged(work, tmp_path / "out")
    base = {n: t for f in (work / "base").glob("*.safetensors") for n, t in load_file(f).items()}
    changed = [f for f in sorted(model.glob("*.safetensors")) if any("_proj" in n for n in load_file(f))]
    for file in changed[: len(changed) * 3 // 4]:
        save_file({n: base[n] for n in load_file(file)}, file, {"format": "pt"})
    with pytest.raises(TunebuildError, match=r"gates\.merge_"):
        judge(model, truth)


def test_a_shard_that_is_not_there_is_named(work, truth, tmp_path):
    model = merged(work, tmp_path / "out")
    index = json.loads((model / "model.safetensors.index.json").read_text())
    gone = index["weight_map"]["model.layers.1.mlp.down_proj.weight"]
    index["weight_map"] = {n: f for n, f in index["weight_map"].items() if f != gone}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / gone).unlink()
    with pytest.raises(TunebuildError, match=f"{model} lacks the tensor model.*; build or export again"):
        judge(model, truth)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_value_that_is_no_number_is_named(work, truth, tmp_path, value):
    model = merged(work, tmp_path / "out")
    file = sorted(model.glob("*.safetensors"))[0]
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[3] = value
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(TunebuildError, match="of the served model holds a value that is not a number"):
        judge(model, truth)


def apart(work, out):
    """The base in shards of ours, as it is served with the adapter beside it."""
    out.mkdir()
    copy_base(base=work / "base", out=out, progress=Silent(), shard_bytes=80_000)
    return out / "model"


def test_an_adapter_beside_the_published_base_is_its_original_merge(work, truth, tmp_path):
    anything = GatesSpec(merge_kl=None, merge_lost=None)
    found = judge(apart(work, tmp_path / "apart"), truth, anything, work / "trained" / "adapter")
    original = judge(merged(work, tmp_path / "out", strategy="original"), truth, anything)
    assert found == pytest.approx(original, rel=1e-3, abs=1e-6)
    assert 1e-4 < found["merge_kl"] < found["training_kl"]  # training saw the base in 4 bits


def test_an_adapter_that_changes_nothing_is_refused(work, truth, tmp_path):
    tensors, trained = spoilt(work, tmp_path / "trained")
    save_file({n: t * 0 if "lora_B" in n else t for n, t in tensors.items()}, trained / ADAPTER)
    with pytest.raises(TunebuildError, match=r"gates\.merge_lost") as caught:
        judge(apart(work, tmp_path / "apart"), truth, adapter=trained / "adapter")
    assert caught.value.exit_code == REFUSED


def test_an_adapter_with_a_value_that_is_no_number_is_named(work, truth, tmp_path):
    tensors, trained = spoilt(work, tmp_path / "trained")
    tensors[min(tensors)].view(-1)[3] = float("nan")
    save_file(tensors, trained / ADAPTER)
    with pytest.raises(TunebuildError, match=r"lora_A.*holds a value that is not a number"):
        judge(apart(work, tmp_path / "apart"), truth, adapter=trained / "adapter")


def said(*rows):
    return Logprobs(torch.log(torch.tensor(rows)))


def test_figures_are_what_they_are_called():
    trained, base = said([0.9, 0.1], [0.2, 0.8]), said([0.5, 0.5], [0.5, 0.5])
    found = measure(base, trained, trained, torch.tensor([0, 0]))
    assert found["merge_kl"] == 0
    assert found["merge_lost"] == 0
    assert found["merge_top1"] == 1
    assert found["eval_accuracy"] == 0.5
    assert found["eval_loss"] == pytest.approx(-(torch.log(torch.tensor([0.9, 0.2])).mean().item()))
    assert found["base_perplexity"] == pytest.approx(2)
    lost = measure(base, trained, base, torch.tensor([0, 0]))
    assert lost["merge_lost"] == pytest.approx(1)
    assert lost["merge_kl"] == pytest.approx(lost["training_kl"])


@pytest.mark.quick
def test_gates_name_every_figure_beyond_its_limit():
    figures = {
        "merge_kl": 0.2,
        "merge_lost": float("nan"),
        "training_kl": 0.5,
        "merge_top1": 0.5,
        "eval_loss": 1.0,
        "eval_accuracy": 1,
    }
    gates = GatesSpec(merge_top1=ShareAtLeast(min=0.6), eval_loss=LossAtMost(max=1.0))
    with pytest.raises(TunebuildError) as caught:
        check_gates(gates, figures)
    assert [d.path for d in caught.value.diagnostics] == [
        "gates.merge_kl",
        "gates.merge_lost",
        "gates.merge_top1",
    ]
    check_gates(GatesSpec(merge_kl=None, merge_lost=None), figures)


@pytest.mark.parametrize(
    ("moved", "advice"), [(0.003, "0.003 nats a token only: raise tuning.epochs"), (0.5, "try another merge")]
)
def test_a_merge_is_not_blamed_for_a_training_that_changed_next_to_nothing(moved, advice):
    with pytest.raises(TunebuildError) as caught:
        check_gates(GatesSpec(), {"merge_kl": 0.7 * moved, "merge_lost": 0.7, "training_kl": moved})
    found = {d.path: d.hint for d in caught.value.diagnostics}
    assert advice in found["gates.merge_lost"]


@pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 1000])
def test_rows_are_evenly_spread(length):
    found = [row["index"] for row in choose_rows([{"input_ids": [1], "labels": [1]}] * length, 10)]
    assert len(found) == min(length, 64)
    assert found[0] == 0
    gaps = {b - a for a, b in zip(found, [*found[1:], length], strict=True)}
    assert max(gaps) - min(gaps) <= 1


def test_a_large_vocabulary_looks_at_fewer_rows():
    rows = [{"input_ids": [1] * 10, "labels": [-100] + [1] * 9}] * 100
    assert len(choose_rows(rows, 1000)) == 64
    assert [row["index"] for row in choose_rows(rows, 2_000_000)] == [0, 33, 66]
    assert len(choose_rows(rows, 10**9)) == 1


@pytest.mark.parametrize(
    ("strategy", "method", "moved", "limit"),
    [
        ("dequantized", "qlora", 3.0, 0.05),
        ("original", "lora", 0.1, 0.3),
        ("original", "lora", 0.217, 0.138),
        ("original", "lora", 0.001, 0.5),
        ("trained", "full", 0.0, 0.5),
        ("none", "lora", 1.0, 0.05),
        ("original", "qlora", 3.0, 0.5),
    ],
)
def test_the_limit_of_what_a_merge_may_lose_follows_the_training(strategy, method, moved, limit):
    assert lost_limit(strategy, method, moved) == pytest.approx(limit, abs=1e-3)


def test_auto_is_held_to_the_limit_that_was_measured():
    figures = {"merge_kl": 0.06, "merge_lost": 0.06, "training_kl": 1.0, "merge_lost_limit": 0.05}
    with pytest.raises(TunebuildError, match=r"0\.06, at most 0\.05 is allowed"):
        check_gates(GatesSpec(), figures)
    check_gates(GatesSpec.model_validate({"merge_lost": {"max": 0.1}}), figures)
    check_gates(GatesSpec(merge_lost=None), figures)
