"""Runs a training from tokenised rows to an adapter."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from trl import SFTConfig, SFTTrainer

from tunebuild.errors import fail
from tunebuild.store import Progress
from tunebuild.store.disk import full_disk_named
from tunebuild.train.adapter import add_adapter, restore_trainable, save_adapter, trainable_copy
from tunebuild.train.base import describe_quantisation, load_base
from tunebuild.train.callbacks import Watch
from tunebuild.train.checkpoints import SealCheckpoints, latest_whole
from tunebuild.train.memory import keep_freed_memory
from tunebuild.train.quiet import quieten_libraries
from tunebuild.train.rows import PadRight, load_rows
from tunebuild.train.settings import TrainSettings

#: Points of the evaluation curve; each costs a pass over all rows that are held out.
_EVALUATIONS = 4


def train_adapter(
    settings: TrainSettings, *, data: Path, base: Path, work: Path, out: Path, progress: Progress
) -> None:
    """Train an adapter.

    Args:
        settings: decided settings.
        data: directory with ``train.arrow`` and perhaps ``eval.arrow``.
        base: the base model's directory.
        work: checkpoints go here and are resumed from here.
        out: gets ``adapter/``, ``quantisation.json`` (qlora only), ``metrics.jsonl`` and ``result.json``.
        progress: where to say how far it is.

    Raises:
        TunebuildError: rows without a target, a loss that is not a number, a base that cannot be used.
    """
    quieten_libraries()
    if settings.device == "cpu":
        keep_freed_memory()
    rows = load_rows(data / "train.arrow")
    held_out = load_rows(data / "eval.arrow") if (data / "eval.arrow").is_file() else None
    model = load_base(base, settings)
    quantisation = describe_quantisation(model, settings)
    peft_model = add_adapter(model, settings.tuning.lora, settings.tuning.seed)
    initial = trainable_copy(peft_model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if pad_id is None:
        raise fail("no-pad", "the tokenizer has neither a padding nor an end token", path="model.base")
    checkpoints = work / "checkpoints"
    trainer = SFTTrainer(
        model=peft_model,
        args=_arguments(settings, checkpoints, len(rows) if held_out else 0),
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        data_collator=PadRight(int(pad_id)),
        callbacks=[Watch(work / "metrics.jsonl", progress), SealCheckpoints()],
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    restore_trainable(trainer.model, initial)
    if len(trainer.train_dataset) != len(rows):
        raise fail("rows-lost", f"the trainer kept {len(trainer.train_dataset)} of {len(rows)} rows")
    resumed = latest_whole(checkpoints, progress)
    started = time.monotonic()
    with full_disk_named(work):
        outcome = trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        save_adapter(trainer.model, out / "adapter")
    _check_finite(trainer.model)
    (work / "metrics.jsonl").rename(out / "metrics.jsonl")
    if quantisation:
        _write_json(out / "quantisation.json", quantisation.to_json())
    result = {
        "steps": outcome.global_step,
        "rows": len(rows),
        "final_loss": _last_loss(trainer.state.log_history),
        "device": settings.device,
        "compute_dtype": settings.compute_dtype,
        "resumed": resumed is not None,
        "trainable_parameters": sum(t.numel() for t in initial.values()),
        "seconds": round(time.monotonic() - started, 1),
    }
    _write_json(out / "result.json", result)
    progress.say(
        f"{result['steps']} steps in {result['seconds']} s on {settings.device} in {settings.compute_dtype}, "
        f"final loss {result['final_loss']:.4f}"
    )


def _arguments(settings: TrainSettings, checkpoints: Path, evaluated_rows: int) -> SFTConfig:
    """TRL's settings. ``evaluated_rows`` is the number of training rows, 0 where nothing is held out."""
    tuning = settings.tuning
    steps = settings.steps(evaluated_rows)
    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=tuning.epochs,
        learning_rate=tuning.learning_rate,
        lr_scheduler_type=tuning.schedule if tuning.schedule != "constant" else "constant_with_warmup",
        warmup_steps=tuning.warmup_steps,
        per_device_train_batch_size=settings.rows_per_pass,
        per_device_eval_batch_size=settings.rows_per_pass,
        gradient_accumulation_steps=tuning.batch_size // settings.rows_per_pass,
        weight_decay=tuning.weight_decay,
        max_grad_norm=tuning.max_grad_norm,
        seed=tuning.seed,
        data_seed=tuning.seed,
        bf16=settings.compute_dtype == "bfloat16",
        use_cpu=settings.device == "cpu",
        gradient_checkpointing=settings.checkpoints_activations,
        # Our rows are final: TRL must not tokenise, truncate, pack or drop any of them.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        eval_strategy="steps" if evaluated_rows else "no",
        eval_steps=max(1, math.ceil(steps / _EVALUATIONS)),
        save_strategy="epoch",
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=settings.device == "cuda",
    )


def _check_finite(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(parameter).all():
            raise fail(
                "not-finite", f"{name} holds a value that is not a number", path="tuning.learning_rate"
            )


def _last_loss(history: list[dict[str, Any]]) -> float:
    return float(next(entry["loss"] for entry in reversed(history) if "loss" in entry))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
