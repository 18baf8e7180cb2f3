"""What the trainer is told: TRL's settings for a spec's section and a plan."""

from __future__ import annotations

import math
from pathlib import Path

from transformers import PreTrainedModel
from trl import SFTConfig

from tunebuild.train.distributed.sharding import compute_in, shard_by_layers
from tunebuild.train.plan.settings import Execution, TrainSettings


def trainer_arguments(
    settings: TrainSettings,
    execution: Execution,
    model: PreTrainedModel,
    checkpoints: Path,
    rows: int,
    *,
    evaluates: bool,
) -> SFTConfig:
    """TRL's settings.

    Args:
        settings: decided settings.
        execution: how a step is computed.
        model: what will be trained; its layers are what is split, where anything is.
        checkpoints: directory for them.
        rows: number of training rows.
        evaluates: whether there are rows held out.
    """
    tuning = settings.tuning
    between = max(1, math.ceil(settings.steps(rows) / tuning.evaluations))
    best = evaluates and (tuning.keep == "best" or tuning.early_stopping is not None)
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=tuning.epochs,
        learning_rate=tuning.learning_rate,
        lr_scheduler_type=tuning.schedule if tuning.schedule != "constant" else "constant_with_warmup",
        warmup_steps=settings.warmup_steps(rows),
        per_device_train_batch_size=1,  # a micro-batch, whatever rows it holds
        gradient_accumulation_steps=execution.micro_batches,
        weight_decay=tuning.weight_decay,
        max_grad_norm=tuning.max_grad_norm,
        seed=tuning.seed,
        data_seed=tuning.seed,
        # The fused layer converts what needs it; all other weights have the right precision already. What is
        # split is converted as it is gathered.
        bf16=settings.compute_dtype == "bfloat16" and not execution.fused and not tuning.shard,
        use_cpu=settings.device == "cpu",
        ddp_backend=None if settings.processes == 1 else "gloo" if settings.device == "cpu" else "nccl",
        gradient_checkpointing=False,  # the layers have been told already
        # Our rows are final: TRL must not tokenize, truncate, pack or drop any of them.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=between,
        save_strategy="steps" if best else "epoch",
        save_steps=between,
        restore_callback_states_from_checkpoint=True,  # how long early stopping has waited
        load_best_model_at_end=best and tuning.keep == "best",
        metric_for_best_model="eval_loss" if best else None,
        greater_is_better=False if best else None,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",  # who reports is among our callbacks
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=settings.device == "cuda",
        **(shard_by_layers(model) if tuning.shard else {}),
    )
    if tuning.shard:
        compute_in(arguments, settings)
    # A process uses one card, however many it sees; left alone, transformers would spread it over all.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
