"""Sharded training (FSDP) gives the result of one process, killed or not."""

from __future__ import annotations

import json
import os
import signal
from multiprocessing import active_children

import pytest
import torch
from safetensors.torch import load_file

from support.models import save_base
from support.rows import write_rows
from tunebuild.errors import TunebuildError
from tunebuild.spec import load_spec
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent
from tunebuild.train.launch.processes import train_in_processes
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.plan.estimate import estimate_memory
from tunebuild.train.plan.execution import plan_training
from tunebuild.train.plan.lengths import read_lengths
from tunebuild.train.plan.settings import Execution, TrainSettings
from tunebuild.train.plan.shapes import count_parameters, read_tensors


def settings(**changes):
    options = {
        "epochs": 4, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 0, "max_length": 128,
        "lora": LoraSpec(r=4, alpha=8), **changes,
    }  # fmt: skip
    return TrainSettings(TuningSpec(**options), "cpu", "float32")


class Kills(Silent):
    """Ends one of the processes, or all, when they have done so many steps."""

    def __init__(self, victims):
        self.victims = victims

    def step(self, done, total, note=""):
        if done >= 8:
            for child in active_children()[self.victims]:
                os.kill(child.pid, signal.SIGKILL)


def start(train, settings, root, name, progress=None):
    places = {"work": root / f"{name}-work", "out": root / f"{name}-out"}
    for place in places.values():
        place.mkdir(exist_ok=True)
    train(settings, data=root / "rows", base=root / "base", **places, progress=progress or Silent())
    return places["out"]


def metrics(out, name):
    lines = map(json.loads, (out / "metrics.jsonl").read_text("utf-8").splitlines())
    return [line[name] for line in lines if name in line]


def header(path):
    data = path.read_bytes()
    return data[: 8 + int.from_bytes(data[:8], "little")]


def of_process(checkpoint, number):
    return sum(path.stat().st_size for path in checkpoint.rglob(f"__{number}_*.distcp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options", "file"),
    [
        ("full", {}, "model/model.safetensors"),
        ("lora", {"keep": "best", "learning_rate": 1e-2}, "adapter/adapter_model.safetensors"),
    ],
)
def test_fsdp_resumes_to_the_same_result_after_kill(tmp_path, method, options, file):
    save_base("llama", tmp_path / "base")  # with tied embeddings
    write_rows(tmp_path / "base", tmp_path / "rows", held_out=True)
    one = start(train_adapter, settings(method=method, **options), tmp_path, "one")
    two = settings(method=method, processes=2, shard=True, **options)
    work = tmp_path / "two-work"
    if method == "lora":
        # As on a GPU with little memory: fused, one layer checkpointed, two micro-batches a step.
        plan = json.loads((tmp_path / "one-work" / "plan.json").read_text("utf-8"))
        plan["execution"] |= {"fused": True, "checkpointed": 1, "micro_batches": 2}
        work.mkdir()
        (work / "plan.json").write_text(json.dumps(plan), "utf-8")
    victims = slice(1, 2) if method == "lora" else slice(None)
    with pytest.raises(TunebuildError, match="a training process ended"):
        start(train_in_processes, two, tmp_path, "two", Kills(victims))
    sealed = sorted(path.parent for path in work.glob("checkpoints/*/sealed.json"))
    parts = [of_process(sealed[-1], number) for number in (0, 1)]
    assert min(parts) > 0.6 * max(parts)  # what is split is really in two places

    out = start(train_in_processes, two, tmp_path, "two")
    results = [json.loads((place / "result.json").read_text("utf-8")) for place in (one, out)]
    assert results[1]["resumed"]
    assert results[1]["trainable_parameters"] == results[0]["trainable_parameters"]
    assert len(metrics(one, "loss")) == 12
    for name in ("loss", "grad_norm", "eval_loss", "mean_token_accuracy", "num_tokens"):
        assert metrics(out, name) == pytest.approx(metrics(one, name), rel=1e-5)
    assert header(out / file) == header(one / file)
    tensors, expected = load_file(out / file), load_file(one / file)
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5)
    others = [{path.relative_to(place) for path in place.rglob("*")} for place in (one, out)]
    assert others[0] == others[1]


@pytest.fixture
def shapes(tmp_path):
    save_base("llama", tmp_path / "base", num_hidden_layers=8)
    write_rows(tmp_path / "base", tmp_path / "rows")
    config = json.loads((tmp_path / "base" / "config.json").read_text("utf-8"))
    return config, read_tensors(tmp_path / "base"), read_lengths(tmp_path / "rows" / "train.arrow")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_plan_divides_sharded_memory_and_says_so(shapes, method):
    config, tensors, lengths = shapes
    execution = Execution(True, False, False, 0, 2, 100)
    whole, split = (
        estimate_memory(config, tensors, settings(method=method, processes=4, shard=shard), execution)
        for shard in (False, True)
    )
    layer = sum(torch.Size(shape).numel() for name, shape in tensors.items() if ".layers.0." in name)
    gathered = count_parameters(tensors) - 6 * layer
    assert split.optimizer == whole.optimizer // 4
    assert split.adapters == whole.adapters // 4
    assert split.weights == whole.weights // 4 + 4 * gathered
    # A whole gradient is there of what is gathered.
    assert split.gradients == whole.gradients // 4 + (4 * gathered if method == "full" else 0)
    assert split.activations == whole.activations
    plan = plan_training(config, tensors, settings(method=method, processes=4, shard=True), lengths)
    assert any("sharded over 4 processes" in reason for reason in plan.reasons)


SPEC = """\
apiVersion: tunebuild/v1
name: split
data: {train: [{path: rows.jsonl, format: qa}]}
model: {base: org/model}
tuning: {method: lora, processes: 2, shard: true}
"""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tuning.processes=1", "tuning.shard: one process has nothing to split"),
        ("tuning.method=qlora", "tuning.shard: needs tuning.method lora or full, not qlora"),
        ("tuning.method=auto", "tuning.shard: needs tuning.method lora or full, not auto"),
        ("tuning.method=peft", "tuning.shard: needs tuning.method lora or full, not peft"),
    ],
)
def test_methods_that_cannot_be_sharded_are_refused(tmp_path, override, message):
    (tmp_path / "rows.jsonl").write_text('{"question": "Q?", "answer": "A."}\n', "utf-8")
    (tmp_path / "spec.yaml").write_text(SPEC, "utf-8")
    load_spec(tmp_path / "spec.yaml", ["tuning.nodes=2", "tuning.processes=1"])
    with pytest.raises(TunebuildError, match=message):
        load_spec(tmp_path / "spec.yaml", [override])
