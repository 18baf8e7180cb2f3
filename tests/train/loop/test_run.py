"""Training really trains, in every architecture, and is guarded where libraries fail in silence."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

from support.killed import kill_training
from support.models import ARCHITECTURES, save_base
from support.rows import write_rows
from tunebuild.data.tokenized import write_examples
from tunebuild.errors import TunebuildError
from tunebuild.prompt import Example
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop import checkpoints
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.model import base as base_module
from tunebuild.train.model.adapter import add_adapter, trainable_copy
from tunebuild.train.model.base import describe_quantization, keep_4bit_weights_unpacked, load_base
from tunebuild.train.plan.settings import TrainSettings


def tuning(**changes):
    options = {
        "epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 0, "max_length": 128,
        "lora": LoraSpec(r=4, alpha=8), **changes,
    }  # fmt: skip
    return TrainSettings(TuningSpec(**options), "cpu", "float32")


class Recorded(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def train(settings, base, tmp_path, name="run", rows="rows", progress=None):
    work, out = tmp_path / f"{name}-work", tmp_path / f"{name}-out"
    work.mkdir(exist_ok=True)
    out.mkdir()
    train_adapter(
        settings, data=tmp_path / rows, base=base, work=work, out=out, progress=progress or Silent()
    )
    return out


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def adapter_digest(out):
    return hashlib.sha256((out / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("method", ["qlora", "lora"])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_training_lowers_the_loss_and_writes_an_adapter(tmp_path, architecture, method):
    base = save_base(architecture, tmp_path / "base", dtype=torch.bfloat16)
    write_rows(base, tmp_path / "rows", held_out=True)
    out = train(tuning(method=method, epochs=6), base, tmp_path)
    lines = metrics(out)
    losses = [m["loss"] for m in lines if "loss" in m]
    assert losses[-1] < 0.7 * losses[0]
    assert any("eval_loss" in m for m in lines)
    assert sorted(p.name for p in (out / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    weights = load_file(out / "adapter" / "adapter_model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.float32}
    assert all(t.abs().sum() > 0 for n, t in weights.items() if "lora_B" in n)
    assert str(tmp_path) not in (out / "adapter" / "adapter_config.json").read_text()
    assert (out / "quantization.json").is_file() == (method == "qlora")
    if method == "qlora":
        modules = json.loads((out / "quantization.json").read_text())["modules"]
        assert len(modules) == len({n.split(".lora_")[0] for n in weights})


def test_same_seed_same_adapter_in_another_process(tmp_path):
    base = save_base("llama", tmp_path / "base")
    script = textwrap.dedent(
        """
        import hashlib, sys
        from pathlib import Path
        import torch
        from tunebuild.spec.tuning import TuningSpec
        from tunebuild.train.model.adapter import add_adapter, trainable_copy
        from tunebuild.train.model.base import load_base
        from tunebuild.train.plan.settings import TrainSettings
        torch.rand(int(sys.argv[2]))  # a different history of random numbers must not matter
        settings = TrainSettings(TuningSpec(seed=7), "cpu", "float32")
        base = Path(sys.argv[1])
        model = add_adapter(load_base(base, settings), settings.tuning, base=base)
        state = b"".join(t.numpy().tobytes() for n, t in trainable_copy(model).items() if "lora_A" in n)
        assert state
        print(hashlib.sha256(state).hexdigest())
        """
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script, str(base), draws], capture_output=True, text=True, check=True
        ).stdout.split()[-1]
        for draws in ("1", "1000")
    }
    assert len(digests) == 1


@pytest.mark.quick
def test_the_seed_alone_decides_what_an_adapter_begins_with(tmp_path):
    """Not what was drawn before it; and another seed begins elsewhere."""
    base = save_base("llama", tmp_path / "base")

    def drawn(seed, history):
        settings = TrainSettings(TuningSpec(seed=seed, method="lora"), "cpu", "float32")
        model = load_base(base, settings)
        torch.manual_seed(history)
        first = trainable_copy(add_adapter(model, settings.tuning, base=base))
        return torch.cat([t.flatten() for n, t in first.items() if "lora_A" in n])

    assert torch.equal(drawn(7, 1), drawn(7, 2))
    assert not torch.equal(drawn(7, 1), drawn(8, 1))


@pytest.mark.parametrize("init", ["default", "pissa"])
def test_killed_training_resumes_to_the_same_bytes(tmp_path, init):
    base = save_base("llama", tmp_path / "base")
    write_rows(base, tmp_path / "rows")
    settings = tuning(epochs=4, method="lora", lora=LoraSpec(r=4, alpha=8, init=init))
    whole = train(settings, base, tmp_path, "whole")
    kill_training(settings, tmp_path)
    recorded = Recorded()
    resumed = train(settings, base, tmp_path, "killed", progress=recorded)
    assert any("going on from step 6 of 12" in line for line in recorded.lines)
    assert adapter_digest(resumed) == adapter_digest(whole)
    steps, expected = metrics(resumed), metrics(whole)
    timed = [[step["step"] for step in one if step.pop("tokens_per_second", 0)] for one in (steps, expected)]
    assert timed == [[*range(2, 7), *range(8, 13)], [*range(2, 13)]]  # a run's first has no time before it
    assert steps == expected


@pytest.mark.parametrize("damage", ["shorten", "remove", "flip"])
def test_a_damaged_checkpoint_is_named_and_not_used(tmp_path, damage):
    base = save_base("llama", tmp_path / "base")
    write_rows(base, tmp_path / "rows")
    first = train(tuning(epochs=2), base, tmp_path, "first")
    written = sorted((tmp_path / "first-work" / "checkpoints").glob("checkpoint-*"))
    assert [c.name for c in written] == ["checkpoint-3", "checkpoint-6"]
    file = written[-1] / "adapter_model.safetensors"
    if damage == "remove":
        file.unlink()
    elif damage == "shorten":
        os.truncate(file, file.stat().st_size // 2)
    else:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    recorded = Recorded()
    (tmp_path / "first-out").rename(tmp_path / "kept-out")
    again = train(tuning(epochs=2), base, tmp_path, "first", progress=recorded)
    assert "checkpoint-6 was cut short and is not used" in recorded.lines
    assert any("going on from step 3" in line for line in recorded.lines)
    assert adapter_digest(again) == adapter_digest(tmp_path / "kept-out")
    assert first.name == "first-out"


def test_a_training_that_is_killed_as_it_saves_goes_on_from_the_checkpoint_before(tmp_path, monkeypatch):
    base = save_base("llama", tmp_path / "base")
    write_rows(base, tmp_path / "rows")
    settings = tuning(epochs=2, method="lora", checkpoints=1)
    original, saved = checkpoints.scan, []

    def killed_at_the_second(directory, **options):
        saved.append(directory.name)
        if len(saved) == 2:
            raise KeyboardInterrupt
        return original(directory, **options)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "scan", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            train(settings, base, tmp_path)
    assert saved == ["checkpoint-3", "checkpoint-6"]
    (tmp_path / "run-out").rmdir()
    recorded = Recorded()
    train(settings, base, tmp_path, progress=recorded)
    assert any("going on from step 3" in line for line in recorded.lines)
    assert [path.name for path in (tmp_path / "run-work").glob("checkpoints/*-*")] == ["checkpoint-6"]


def test_adapter_stays_float32_though_trl_casts_it(tmp_path, monkeypatch):
    base = save_base("llama", tmp_path / "base")
    write_rows(base, tmp_path / "rows")
    small = {"learning_rate": 1e-5, "epochs": 3}
    guarded = load_file(train(tuning(**small), base, tmp_path, "a") / "adapter" / "adapter_model.safetensors")
    monkeypatch.setattr("tunebuild.train.loop.run.restore_trainable", lambda model, saved: None)
    cast = load_file(train(tuning(**small), base, tmp_path, "b") / "adapter" / "adapter_model.safetensors")
    assert {t.dtype for t in guarded.values()} == {torch.float32}
    assert {t.dtype for t in cast.values()} == {torch.bfloat16}, "TRL no longer casts: drop the guard"


@pytest.mark.quick
def test_rows_without_a_target_stop_the_build(tmp_path):
    base = save_base("llama", tmp_path / "base")
    (tmp_path / "rows").mkdir()
    write_examples(tmp_path / "rows" / "train.arrow", [Example([1, 2, 3], ((1, 3),)), Example([1, 2, 3], ())])
    with pytest.raises(TunebuildError, match="row 2 has no supervised token"):
        train(tuning(), base, tmp_path)


def test_a_loss_that_is_not_a_number_stops_the_build(tmp_path):
    base = save_base("llama", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    from safetensors.torch import save_file

    save_file(weights, base / "model.safetensors", {"format": "pt"})
    write_rows(base, tmp_path / "rows")
    with pytest.raises(TunebuildError, match=r"(loss|grad_norm) is nan at step 1"):
        train(tuning(), base, tmp_path)


@pytest.mark.quick
def test_qlora_on_cpu_refuses_widths_not_divisible_by_64(tmp_path):
    base = save_base("llama", tmp_path / "base", hidden_size=96, num_attention_heads=4, intermediate_size=192)
    write_rows(base, tmp_path / "rows")
    with pytest.raises(TunebuildError, match=r"q_proj has 96 inputs.*multiples of 64"):
        load_base(base, tuning())
    train(tuning(method="lora", epochs=1), base, tmp_path)


def grads(model, ids):
    model.train()
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def largest_error(one, other):
    return max(float((one[n] - other[n]).norm() / one[n].norm().clamp_min(1e-12)) for n in one)


def prepared_model(tmp_path, monkeypatch, *, guarded):
    """A 4-bit model with an adapter on a processor that would repack its weights."""
    import bitsandbytes.nn.modules as bnb_modules

    has_it = bnb_modules.has_avx512bf16()
    if not has_it:
        # The same fault without the processor: the repacking itself is plain Python over kernels that
        # this processor lacks, so stand in for it with what it does: other bytes in the same storage.
        monkeypatch.setattr(bnb_modules, "has_avx512bf16", lambda: True)
        monkeypatch.setattr(
            bnb_modules, "_convert_weight_packed_for_cpu", lambda data, state: (data.flip(0), state)
        )
    base = save_base("llama", tmp_path / "base", dtype=torch.bfloat16)
    if not guarded:
        monkeypatch.setattr(base_module, "keep_4bit_weights_unpacked", lambda model: None)
    settings = TrainSettings(TuningSpec(lora=LoraSpec(r=4)), "cpu", "bfloat16" if has_it else "float32")
    model = add_adapter(load_base(base, settings), settings.tuning, base=base)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


@pytest.mark.parametrize("guarded", [True, False])
def test_an_evaluation_leaves_4bit_weights_alone(tmp_path, monkeypatch, guarded):
    model = prepared_model(tmp_path, monkeypatch, guarded=guarded)
    ids = torch.arange(20, 52)[None, :]
    before = grads(model, ids)
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    error = largest_error(before, grads(model, ids))
    if guarded:
        assert error == 0.0
    else:
        assert error > 0.1, "bitsandbytes no longer repacks in place: drop the guard"


@pytest.mark.quick
def test_repacking_is_off_in_every_4bit_module(tmp_path):
    from bitsandbytes.nn import Linear4bit

    model = load_base(save_base("falcon", tmp_path / "base"), tuning())
    modules = [m for m in model.modules() if isinstance(m, Linear4bit)]
    assert len(modules) == len(describe_quantization(model, tuning()).modules) == 8
    assert not any(m.support_avx512bf16_for_cpu for m in modules)
    modules[0].support_avx512bf16_for_cpu = True
    keep_4bit_weights_unpacked(model)
    assert not modules[0].support_avx512bf16_for_cpu


def test_unknown_targets_are_refused(tmp_path):
    base = save_base("llama", tmp_path / "base")
    unknown = tuning(lora=LoraSpec(targets=("no_such_proj",)))
    with pytest.raises(TunebuildError, match=r"tuning.lora.targets"):
        add_adapter(load_base(base, unknown), unknown.tuning, base=base)
