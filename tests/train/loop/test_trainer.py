"""The result of a step does not depend on packing, on the number of micro-batches, or on halving them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaForCausalLM
from trl import SFTTrainer

from support.models import save_base
from support.rows import write_rows
from tunebuild.data.prompt_source import build_renderer
from tunebuild.data.tokenized import write_examples
from tunebuild.errors import TunebuildError
from tunebuild.spec.model import PromptSpec
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop import run, trainer
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.plan.execution import plan_training
from tunebuild.train.plan.lengths import read_lengths
from tunebuild.train.plan.settings import TrainSettings
from tunebuild.train.plan.shapes import read_tensors


def train(root, name, settings=None, **changes):
    options = {
        "method": "lora", "epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 0,
        "max_length": 128, "lora": LoraSpec(r=4, alpha=8), **changes,
    }  # fmt: skip
    work, out = root / f"{name}-work", root / f"{name}-out"
    work.mkdir()
    out.mkdir()
    train_adapter(
        settings or TrainSettings(TuningSpec(**options), "cpu", "float32"),
        data=root / "rows", base=root / "base", work=work, out=out, progress=Silent(),
    )  # fmt: skip
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    return out, losses, json.loads((out / "memory.json").read_text())


@pytest.fixture
def prepared(tmp_path):
    save_base("llama", tmp_path / "base")
    write_rows(tmp_path / "base", tmp_path / "rows", held_out=True)
    return tmp_path


@pytest.mark.parametrize("changes", [{"packing": False}, {"micro_batch_size": 1}, {"micro_batch_size": 2}])
def test_the_loss_does_not_depend_on_how_a_step_is_computed(prepared, changes):
    _, packed, memory = train(prepared, "packed")
    _, other, other_memory = train(prepared, "other", **changes)
    assert memory["execution"]["packed"]
    assert memory["execution"]["micro_batches"] == 1
    assert other_memory["execution"] != memory["execution"]
    assert other == pytest.approx(packed, rel=1e-5)
    assert packed[-1] < 0.95 * packed[0]


def test_loss_is_the_same_for_models_without_num_items_in_batch(prepared, monkeypatch):
    _, plain, _ = train(prepared, "plain", micro_batch_size=2)
    monkeypatch.setattr(LlamaForCausalLM, "accepts_loss_kwargs", False, raising=False)  # as some models do
    _, other, _ = train(prepared, "other", micro_batch_size=2)
    assert other == plain


def test_gradient_checkpointing_changes_nothing(prepared):
    from tunebuild.train.loop import run

    _, plain, _ = train(prepared, "plain")
    original = run.plan_training

    def lean(*args, **options):
        plan = original(*args, **options)
        return replace(plan, execution=replace(plan.execution, checkpointed=1, fused=True))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "plan_training", lean)
        _, again, memory = train(prepared, "again")
    assert memory["execution"]["checkpointed"] == 1
    assert again == pytest.approx(plain, rel=1e-5)


class Full:
    """A device that has room for so many tokens at once; a real one cannot be filled on purpose here.

    Longer micro-batches of exactly ``fitting`` tokens have room, too.
    """

    def __init__(self, patch, tokens, fitting=0):
        from transformers.models.llama.modeling_llama import LlamaMLP

        self.failures = 0
        original = LlamaMLP.forward

        def forward(module, x):
            if module.training and x.shape[0] * x.shape[1] not in (*range(tokens + 1), fitting):
                self.failures += 1
                raise torch.OutOfMemoryError("full")
            return original(module, x)

        patch.setattr(LlamaMLP, "forward", forward)


def test_micro_batches_are_halved_when_memory_runs_out(prepared, monkeypatch):
    _, whole, _ = train(prepared, "whole", batch_size=8, micro_batch_size=4)
    full = Full(monkeypatch, 90)
    _, halved, memory = train(prepared, "halved", batch_size=8, micro_batch_size=4)
    assert full.failures == len(memory["out_of_memory"]) > 0
    assert memory["out_of_memory"][0]["tokens"] > 90
    assert halved == pytest.approx(whole, rel=1e-5)


def test_a_row_that_does_not_fit_is_named(prepared, monkeypatch):
    Full(monkeypatch, 10)
    with pytest.raises(TunebuildError, match=r"tuning.max_length: a row of \d+ tokens does not fit"):
        train(prepared, "none")


def test_a_long_row_is_not_blamed_for_what_others_take(prepared, monkeypatch):
    renderer = write_rows(prepared / "base", prepared / "rows")
    asked = [("A long one?", "long " * 150), *((f"Which is {n}?", "It is that one.") for n in range(7))]
    pairs = [({"role": "user", "content": q}, {"role": "assistant", "content": a}) for q, a in asked]
    examples = [renderer.example(list(pair)) for pair in pairs]
    write_examples(prepared / "rows" / "train.arrow", examples)
    _, whole, _ = train(prepared, "whole", batch_size=8, micro_batch_size=4)
    full = Full(monkeypatch, 60, fitting=len(examples[0].ids))
    assert sum(len(example.ids) for example in examples[1:]) > 120
    _, halved, memory = train(prepared, "halved", batch_size=8, micro_batch_size=4)
    assert full.failures == len(memory["out_of_memory"]) > 0
    assert halved == pytest.approx(whole, rel=1e-5)


def test_the_evaluation_is_the_mean_over_tokens(prepared, monkeypatch):
    # Answers of one word and of many, in batches of one row: a mean over batches would be another figure.
    renderer = build_renderer(PromptSpec(), prepared / "base", prepared / "base")
    pairs = [
        [{"role": "user", "content": "So?"}, {"role": "assistant", "content": answer}]
        for answer in ("No", "Item 3 is the green one. " * 4, "The red one, it seems.")
    ]
    write_examples(prepared / "rows" / "eval.arrow", [renderer.example(pair) for pair in pairs])
    widths = []
    as_wide_as = trainer._as_wide_as

    def narrow(limit, lengths, packed):
        found = as_wide_as(int(lengths.max()), lengths, packed)
        widths.append(len(list(found)))
        return found

    monkeypatch.setattr(trainer, "_as_wide_as", narrow)
    out, _, _ = train(prepared, "one", epochs=1, learning_rate=1e-12)
    assert min(widths) > 1
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    evaluated = next(line for line in lines if "eval_loss" in line)
    from transformers import AutoModelForCausalLM

    from tunebuild.train.loop.rows import Rows, load_rows

    model = AutoModelForCausalLM.from_pretrained(prepared / "base").eval()
    losses = []
    for row in map(Rows(load_rows(prepared / "rows" / "eval.arrow")).__getitem__, range(3)):
        logits = model(input_ids=row["input_ids"][None]).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits, row["labels"][1:], ignore_index=-100, reduction="none"
        )
        losses.append(loss[row["labels"][1:] != -100])
    assert evaluated["eval_loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-4)


def test_the_best_adapter_is_kept_and_training_stops_early(prepared):
    # So large a rate that the loss on held-out rows gets worse again.
    options = {"epochs": 30, "evaluations": 30, "learning_rate": 0.3, "early_stopping": {"patience": 2}}
    out, losses, _ = train(prepared, "best", keep="best", **options)
    result = json.loads((out / "result.json").read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    evaluated = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    assert len(losses) == result["steps"] < 90
    best = min(evaluated, key=evaluated.get)
    assert best == result["best_checkpoint_step"] < max(evaluated)
    kept = prepared / "best-work" / "checkpoints" / f"checkpoint-{best}" / "adapter_model.safetensors"
    digests = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (kept, out / "adapter" / "adapter_model.safetensors")
    }
    assert len(digests) == 1


@pytest.mark.quick
def test_every_rank_makes_the_directory_of_a_checkpoint(tmp_path, monkeypatch):
    """Right after saving, transformers takes a checkpoint for the best only if its directory is there.

    What writes is replaced here by nothing, as on a rank that another one writes for.
    """
    asked = []
    monkeypatch.setattr(SFTTrainer, "save_model", lambda rank, *arguments: asked.append(arguments))
    rank = object.__new__(trainer.Trainer)
    rank.args = SimpleNamespace(output_dir=str(tmp_path / "all"))
    checkpoint = tmp_path / "run" / "checkpoint-3"
    for directory in (None, str(checkpoint), str(checkpoint)):
        rank.save_model(directory, True)
    assert (tmp_path / "all").is_dir()
    assert checkpoint.is_dir()
    assert asked == [(None, True), (str(checkpoint), True), (str(checkpoint), True)]


def test_early_stopping_goes_on_waiting_after_a_stop(prepared):
    options = {
        "epochs": 30, "evaluations": 30, "learning_rate": 0.3, "early_stopping": {"patience": 4},
        "method": "lora", "batch_size": 4, "warmup_steps": 0, "max_length": 128,
        "lora": LoraSpec(r=4, alpha=8),
    }  # fmt: skip
    whole, _, _ = train(prepared, "whole", **options)
    last = json.loads((whole / "result.json").read_text())["steps"]

    class Stops(Silent):
        def step(self, done, total, note=""):
            if done >= last - 4:
                raise KeyboardInterrupt

    settings = TrainSettings(TuningSpec(**options), "cpu", "float32")
    places = {
        "data": prepared / "rows",
        "base": prepared / "base",
        "work": prepared / "w",
        "out": prepared / "o",
    }
    for name in ("w", "o"):
        (prepared / name).mkdir()
    with pytest.raises(KeyboardInterrupt):
        train_adapter(settings, **places, progress=Stops())
    train_adapter(settings, **places, progress=Silent())
    result = json.loads((prepared / "o" / "result.json").read_text())
    assert result["resumed"]
    assert result["steps"] == last
    adapters = [
        (out / "adapter" / "adapter_model.safetensors").read_bytes() for out in (whole, prepared / "o")
    ]
    assert adapters[0] == adapters[1]


def test_a_resumed_training_is_computed_as_it_began(prepared):
    work = prepared / "resumed-work"
    work.mkdir()
    out = prepared / "resumed-out"
    out.mkdir()
    tuning = TuningSpec(method="lora", epochs=1, batch_size=4, warmup_steps=0, lora=LoraSpec(r=4))
    execution = {
        "packed": False, "fused": False, "compiled": False, "checkpointed": 0,
        "micro_batches": 2, "max_tokens": 999,
    }  # fmt: skip
    parts = ("weights", "adapters", "gradients", "optimizer", "activations", "logits", "overhead")
    memory = dict.fromkeys(parts, 7)
    began = {"execution": execution, "memory": memory, "limit": 99, "step_tokens": 9, "reasons": ["began so"]}
    (work / "plan.json").write_text(json.dumps(began))
    train_adapter(
        TrainSettings(tuning, "cpu", "float32"),
        data=prepared / "rows", base=prepared / "base", work=work, out=out, progress=Silent(),
    )  # fmt: skip
    recorded = json.loads((out / "memory.json").read_text())
    assert recorded["execution"] == execution
    assert recorded["planned"] == memory
    assert (recorded["planned_peak"], recorded["limit"]) == (49, 99)
    assert recorded["reasons"] == ["began so"]


@pytest.mark.quick
def test_the_record_of_memory_has_the_planned_and_the_measured_peak(prepared, monkeypatch):
    """On a GPU; its allocator does not see what the plan calls overhead, so that is added."""
    settings = TrainSettings(TuningSpec(method="lora"), "cuda", "bfloat16")
    lengths = read_lengths(prepared / "rows" / "train.arrow")
    base = prepared / "base"
    plan = plan_training(
        json.loads((base / "config.json").read_text()), read_tensors(base), settings, lengths
    )
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5_000)
    recorded = run._memory(plan, settings, 4_000, [])
    overhead = plan.memory.overhead
    assert overhead > 0
    assert recorded["planned_peak"] == sum(recorded["planned"].values()) == plan.memory.total
    assert (recorded["measured_peak"], recorded["probed_peak"]) == (5_000 + overhead, 4_000 + overhead)
    on_cpu = run._memory(plan, replace(settings, device="cpu"), None, [])
    assert (on_cpu["measured_peak"], on_cpu["probed_peak"]) == (None, None)


def test_ddp_two_ranks_match_one_process(prepared):
    from tunebuild.train.launch.processes import train_in_processes

    # Ten rows in steps of 4: the last step has one row a process. Nothing is dropped or done twice.
    out, one, _ = train(prepared, "one", epochs=3)
    tuning = TuningSpec(
        method="lora", epochs=3, batch_size=4, learning_rate=1e-2, warmup_steps=0, max_length=128,
        lora=LoraSpec(r=4, alpha=8), processes=2,
    )  # fmt: skip
    for name in ("two-work", "two-out"):
        (prepared / name).mkdir()
    train_in_processes(
        TrainSettings(tuning, "cpu", "float32"),
        data=prepared / "rows", base=prepared / "base", work=prepared / "two-work",
        out=prepared / "two-out", progress=Silent(),
    )  # fmt: skip
    lines = [json.loads(line) for line in (prepared / "two-out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if "loss" in line] == pytest.approx(one, rel=1e-4)
    evaluated = [line["eval_loss"] for line in lines if "eval_loss" in line]
    alone = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert evaluated == pytest.approx([line["eval_loss"] for line in alone if "eval_loss" in line], rel=1e-4)


def test_an_error_in_one_rank_is_reported(prepared):
    from tunebuild.train.launch.processes import train_in_processes

    tuning = TuningSpec(method="lora", batch_size=4, processes=2, lora=LoraSpec(targets=("no_such",)))
    for name in ("w", "o"):
        (prepared / name).mkdir()
    with pytest.raises(TunebuildError, match=r"tuning.lora.targets"):
        train_in_processes(
            TrainSettings(tuning, "cpu", "float32"),
            data=prepared / "rows", base=prepared / "base", work=prepared / "w", out=prepared / "o",
            progress=Silent(),
        )  # fmt: skip
