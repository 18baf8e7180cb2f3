"""Adapters of other families than LoRA: they train, go on after a kill, and are served beside the base."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from support.killed import kill_training
from support.models import save_base
from support.rows import write_rows
from tunebuild.errors import TunebuildError
from tunebuild.evaluate.generate import generate
from tunebuild.evaluate.models import ask, choose_rows, load_merged, load_trained
from tunebuild.spec.tuning import PeftSpec, TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop.rows import load_rows
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.model.adapter import add_adapter
from tunebuild.train.model.base import load_base
from tunebuild.train.plan.settings import TrainSettings

KINDS = ("ia3", "prefix_tuning", "prompt_tuning")


def settings(kind, epochs=4):
    options = {
        "method": "peft", "peft": PeftSpec(type=kind, virtual_tokens=6), "epochs": epochs, "batch_size": 4,
        "learning_rate": 0.05, "warmup_steps": 0, "max_length": 128,
    }  # fmt: skip
    return TrainSettings(TuningSpec(**options), "cpu", "float32")


def train(root, kind, name, **changes):
    for directory in (f"{name}-work", name):
        (root / directory).mkdir(exist_ok=True)
    places = {"data": root / "rows", "base": root / "base", "work": root / f"{name}-work", "out": root / name}
    train_adapter(settings(kind, **changes), **places, progress=Silent())
    lines = [json.loads(line) for line in (root / name / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture
def root(tmp_path):
    write_rows(save_base("llama", tmp_path / "base"), tmp_path / "rows", held_out=True)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_and_the_served_files_say_what_was_trained(root, kind):
    losses = train(root, kind, "run", epochs=8)
    assert losses[-1] < 0.95 * losses[0]
    memory = json.loads((root / "run" / "memory.json").read_text())
    assert memory["execution"]["packed"] == (kind == "ia3")
    rows = choose_rows(load_rows(root / "rows" / "eval.arrow"), 512)
    prompts = [row["input_ids"][:5] for row in rows] + [rows[0]["input_ids"][:9]]
    trained = load_trained(root / "base", root / "run" / "adapter", settings(kind))
    served = load_merged(root / "base", settings(kind), root / "run" / "adapter")
    assert torch.allclose(
        ask(trained, rows).log_probabilities, ask(served, rows).log_probabilities, atol=1e-5
    )
    with trained.disable_adapter():
        plain = ask(trained.get_base_model(), rows)
        alone = generate(trained.get_base_model(), prompts, 8, {0})
    assert (plain.log_probabilities - ask(served, rows).log_probabilities).abs().max() > 0.1
    # Word by word through PEFT's own forward, against the server's batch of them all.
    together = generate(served, prompts, 8, {0})
    assert together != alone
    for prompt, answer in zip(prompts, together, strict=True):
        ids = list(prompt)
        for token in answer:
            with torch.no_grad():
                assert int(trained(input_ids=torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_it_goes_on_to_the_same_bytes(root, kind):
    whole = train(root, kind, "whole")
    kill_training(settings(kind), root)
    train(root, kind, "killed")
    one, other = (
        load_file(root / name / "adapter/adapter_model.safetensors") for name in ("whole", "killed")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(whole) > 8


def test_an_architecture_that_ia3_does_not_know_is_refused(tmp_path):
    base = save_base("phi", tmp_path / "base")
    model = load_base(base, settings("ia3"))
    with pytest.raises(TunebuildError, match="which layers of phi3 IA3 scales"):
        add_adapter(model, settings("ia3").tuning, base=base)
