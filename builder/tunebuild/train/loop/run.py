"""Runs a training from tokenized rows to an adapter, or to a model all of whose weights are trained."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from pydantic import TypeAdapter
from transformers import EarlyStoppingCallback, GenerationConfig, PreTrainedModel, TrainerCallback

from tunebuild.errors import fail
from tunebuild.grammar import counted
from tunebuild.serve.engines.attention import attention_of
from tunebuild.store import Progress
from tunebuild.store.atomic import write_atomically
from tunebuild.store.disk import full_disk_named
from tunebuild.train.distributed.gradients import share_first_values
from tunebuild.train.distributed.sharding import gather, own_part
from tunebuild.train.loop.arguments import trainer_arguments
from tunebuild.train.loop.callbacks import Watch
from tunebuild.train.loop.checkpoints import SealCheckpoints, latest_whole
from tunebuild.train.loop.exhausted import exhaustion_named
from tunebuild.train.loop.memory import keep_freed_memory
from tunebuild.train.loop.quiet import quieten_libraries
from tunebuild.train.loop.reporters import reporters
from tunebuild.train.loop.rows import load_rows
from tunebuild.train.loop.trainer import Trainer, of_all_processes
from tunebuild.train.model.adapter import (
    add_adapter,
    restore_trainable,
    save_adapter,
    save_model,
    trainable_copy,
)
from tunebuild.train.model.attention import try_packing
from tunebuild.train.model.base import describe_quantization, load_base
from tunebuild.train.model.inits import moves_base
from tunebuild.train.model.layers import prepare_layers
from tunebuild.train.plan.batches import Batching, MicroBatches
from tunebuild.train.plan.estimate import OVERHEAD
from tunebuild.train.plan.execution import ComputePlan, plan_training
from tunebuild.train.plan.lengths import lengths_of, read_lengths
from tunebuild.train.plan.settings import TrainSettings
from tunebuild.train.plan.shapes import linear_parameters, read_tensors
from tunebuild.train.plan.speed import measure_limit

_PLANS = TypeAdapter(ComputePlan)


def train_adapter(
    settings: TrainSettings, *, data: Path, base: Path, work: Path, out: Path, progress: Progress
) -> None:
    """Train an adapter, or all weights.

    Args:
        settings: decided settings.
        data: directory with ``train.arrow`` and perhaps ``eval.arrow``.
        base: the base model's directory.
        work: checkpoints go here and are resumed from here.
        out: gets ``adapter/`` (full: ``model/``), ``quantization.json`` (qlora only), ``metrics.jsonl``,
            ``memory.json`` and ``result.json``.
        progress: where to say how far it is.

    Raises:
        TunebuildError: rows without a target, a loss that is not a number, a base that cannot be used, or a
            row that does not fit into memory.
    """
    quieten_libraries()
    if settings.device == "cpu":
        keep_freed_memory()
    rows = load_rows(data / "train.arrow")
    held_out = load_rows(data / "eval.arrow") if (data / "eval.arrow").is_file() else None
    config = json.loads((base / "config.json").read_text("utf-8"))
    tensors = read_tensors(base)
    lengths = read_lengths(data / "train.arrow")
    plan = plan_training(config, tensors, settings, lengths)  # may refuse, before anything is loaded
    model = load_base(base, settings)
    # Weights in 32 bits go through products in 16, as in the trainer.
    in_16_bits = settings.full and settings.compute_dtype == "bfloat16"
    with torch.autocast(settings.device, torch.bfloat16, in_16_bits):
        packs = plan.execution.packed and not (why := try_packing(model))
    if packs != plan.execution.packed:
        progress.say(f"rows are not packed: {why}")
        plan = plan_training(config, tensors, settings, lengths, packs=False)
    for reason in plan.reasons:
        progress.say(reason)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    loaded = LoadedBase(model, tokenizer, base, linear_parameters(tensors))
    train_model(loaded, plan, settings, rows=rows, held_out=held_out, work=work, out=out, progress=progress)


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A base model in memory.

    Attributes:
        model: as training computes it.
        tokenizer: its transformers tokenizer.
        directory: of the published files.
        linear: number of weights in linear layers.
    """

    model: PreTrainedModel
    tokenizer: Any
    directory: Path
    linear: int


def train_model(
    base: LoadedBase,
    plan: ComputePlan,
    settings: TrainSettings,
    *,
    rows: Dataset,
    held_out: Dataset | None,
    work: Path,
    out: Path,
    progress: Progress,
) -> None:
    """Train a base that is loaded, or an adapter for it; see :func:`train_adapter`."""
    tuning, model = settings.tuning, base.model
    limit = measure_limit(base.linear, trained=settings.full)
    began = _began_with(work, plan)
    execution = began.execution
    if execution != plan.execution:
        progress.say(f"computed as it began: {execution}")
    if plan.execution.packed and not execution.packed:
        model.set_attn_implementation(attention_of(base.directory))
    _bound_memory(settings)
    quantization = describe_quantization(model, settings)
    if settings.full:
        # The base's own, which the merge copies, may be one that transformers loads and refuses to save.
        model.generation_config = GenerationConfig()
    adapter = (
        None
        if settings.full
        else add_adapter(
            model,
            tuning,
            base=base.directory,
            fused=execution.fused,
            new_tokens=() if tuning.peft else settings.new_tokens,
        )
    )
    prepare_layers(model, execution)
    initial = trainable_copy(adapter) if adapter else {}
    batching = Batching(
        tuning.batch_size, execution.micro_batches, execution.packed, tuning.seed, settings.processes
    )
    lengths = lengths_of(rows.data.table.to_batches())
    micro_batches = MicroBatches(lengths, batching, int(os.environ.get("RANK", "0")))
    watch = Watch(work / "metrics.jsonl", progress, micro_batches, limit)
    seal = SealCheckpoints(tuning.checkpoints)
    callbacks: list[TrainerCallback] = [*reporters(tuning.report_to), watch, seal]
    if tuning.early_stopping and held_out is not None:
        stop = tuning.early_stopping
        callbacks.append(EarlyStoppingCallback(stop.patience, stop.min_delta))
    checkpoints = work / "checkpoints"
    trainer = Trainer(
        model=adapter or model,
        args=trainer_arguments(
            settings, execution, model, checkpoints, len(rows), evaluates=held_out is not None
        ),
        rows=rows,
        held_out=held_out,
        micro_batches=micro_batches,
        max_tokens=execution.max_tokens,
        tokenizer=base.tokenizer,
        callbacks=callbacks,
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    restore_trainable(trainer.model, initial)
    if not tuning.shard:
        share_first_values(trainer.model.parameters(), settings.processes)
    if len(trainer.train_dataset) != len(rows):
        raise fail("rows-lost", f"the trainer kept {len(trainer.train_dataset)} of {len(rows)} rows")
    probed = trainer.probe()
    resumed = latest_whole(checkpoints, progress)
    started = time.monotonic()
    with full_disk_named(work), exhaustion_named():
        outcome = trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        trained = trainer.accelerator.unwrap_model(trainer.model)
        whole = gather(trained) if tuning.shard else None  # by all of them
        if trainer.is_world_process_zero():
            if adapter:
                first = initial if moves_base(tuning.lora) else None
                save_adapter(trained, out / "adapter", first=first, whole=whole)
            else:
                save_model(trained, out / "model", whole=whole)
    _check_finite(trainer.model)
    failures = of_all_processes(trainer.out_of_memory)
    if not trainer.is_world_process_zero():
        return
    seconds = time.monotonic() - started
    (work / "metrics.jsonl").rename(out / "metrics.jsonl")
    if quantization:
        _write_json(out / "quantization.json", quantization.to_json())
    _write_json(out / "memory.json", _memory(began, settings, probed, failures))
    result = {
        "steps": outcome.global_step,
        "rows": len(rows),
        "final_loss": _last_loss(trainer.state.log_history),
        "best_checkpoint_step": trainer.state.best_global_step if tuning.keep == "best" else None,
        "device": settings.device,
        "device_name": torch.cuda.get_device_name() if settings.device == "cuda" else None,
        "compute_dtype": settings.compute_dtype,
        "method": tuning.peft.type if tuning.peft else tuning.method,
        "processes": settings.processes,
        "resumed": resumed is not None,
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "limit": asdict(limit) if limit else None,
        "seconds": round(seconds, 1),
    }
    _write_json(out / "result.json", result)
    progress.say(
        f"{counted(result['steps'], 'step')} in {result['seconds']} s on {settings.device} "
        f"in {settings.compute_dtype}, "
        f"final loss {result['final_loss']:.4f}"
    )


def _began_with(work: Path, plan: ComputePlan) -> ComputePlan:
    """The plan that a resumed training began with: another one may round in another way."""
    kept = work / "plan.json"
    if not kept.is_file():
        if int(os.environ.get("RANK", "0")):
            return plan  # the first process writes it, and plans the same
        _write_json(kept, asdict(plan))
    return _PLANS.validate_json(kept.read_bytes())


def _bound_memory(settings: TrainSettings) -> None:
    """Let a bound of the spec be one: torch's allocator gets no more, context and libraries left out."""
    if settings.device == "cuda" and settings.tuning.memory != "auto":
        total = torch.cuda.get_device_properties(0).total_memory
        share = (settings.tuning.memory.bytes - OVERHEAD[settings.device]) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))


def _memory(
    plan: ComputePlan, settings: TrainSettings, probed: int | None, failures: list[dict[str, int]]
) -> dict[str, Any]:
    on_card = settings.device == "cuda"
    return {
        "device": settings.device,
        "planned": asdict(plan.memory),
        "planned_peak": plan.memory.total,
        "limit": plan.limit,
        # The allocator does not see what the estimate calls overhead.
        "measured_peak": torch.cuda.max_memory_allocated() + plan.memory.overhead if on_card else None,
        "probed_peak": probed + plan.memory.overhead if probed else None,
        "execution": plan.execution.to_json(),
        "reasons": list(plan.reasons),
        "out_of_memory": failures,
    }


def _check_finite(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(own_part(parameter)).all():
            raise fail(
                "not-finite", f"{name} holds a value that is not a number", path="tuning.learning_rate"
            )


def _last_loss(history: list[dict[str, Any]]) -> float:
    return float(next(entry["loss"] for entry in reversed(history) if "loss" in entry))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True) + "\n")
