"""Plans how a training is computed, before anything is loaded.

What an optimizer step sees is the spec's. The plan takes the fastest way to compute it whose estimate fits:
how many micro-batches a step is cut into, and how many layers drop their activations and compute them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunebuild.errors import fail
from tunebuild.grammar import counted
from tunebuild.spec.tuning import TuningSpec
from tunebuild.train.plan.batches import Batching, MicroBatches
from tunebuild.train.plan.estimate import MemoryEstimate, estimate_memory
from tunebuild.train.plan.hardware import find_device, why_not_compile
from tunebuild.train.plan.settings import Execution, TrainSettings, ways_to_less
from tunebuild.train.plan.shapes import (
    Shapes,
    adapted_layers,
    count_parameters,
    linear_layers,
    number_of_layers,
    trained_parameters,
)

# Left free, as a share: an estimate is no measurement, and freed memory comes in pieces that may not fit.
_KEPT_FREE = 0.06
# Costs in tokens: a micro-batch's fixed cost, and dequantizing all weights twice. And what gradient
# checkpointing of all layers adds to a token. From a 7B shape on an H100, compiled: 242 ms for 4,096 tokens,
# 696 ms for 12,288; 20 ms more with NF4; 82 us a token instead of 55 with checkpointing in all layers.
_MICRO_BATCH, _DEQUANTIZED, _CHECKPOINTED = 280, 360, 0.49
# Steps sampled for the sizes of micro-batches, and bounds to try: a micro-batch beyond the bound is halved,
# so that one long step does not decide over all others.
_STEPS, _QUANTILES = 200, (1.0, 0.98, 0.9)
# Runs of fewer tokens than this, for a billion parameters, are too short to amortize compiling.
_WORTH_COMPILING = 30_000_000

# These attend in their own way; transformers has no attention function there that could be replaced.
_OWN_ATTENTION = frozenset(
    ("falcon", "bloom", "mpt", "gptj", "gpt_neo", "codegen", "gemma2", "mamba", "mamba2")
)


@dataclass(frozen=True, slots=True)
class ComputePlan:
    """How a training will be computed.

    Attributes:
        execution: the decisions.
        memory: the estimate for them.
        limit: bytes that were allowed, or ``None`` if nobody knows.
        step_tokens: tokens of a step, on average.
        reasons: a sentence for each decision.
    """

    execution: Execution
    memory: MemoryEstimate
    limit: int | None
    step_tokens: int
    reasons: tuple[str, ...]


def plan_training(
    config: Mapping[str, Any],
    tensors: Shapes,
    settings: TrainSettings,
    lengths: np.ndarray,
    *,
    packs: bool | None = None,
) -> ComputePlan:
    """Choose the fastest execution whose estimate fits.

    Args:
        config: the base's ``config.json``.
        tensors: shapes of its tensors.
        settings: decided settings.
        lengths: tokens of each training row.
        packs: whether the model keeps packed rows apart, once that has been tried; told by the architecture
            if left out.

    Raises:
        TunebuildError: not even the leanest execution fits into a bound that the spec sets.
    """
    if packs is None:
        packs = config.get("model_type") not in _OWN_ATTENTION
    lengths = lengths + settings.virtual_tokens
    packed = settings.tuning.packing and packs and not settings.virtual_tokens
    if not trained_parameters(tensors, settings.tuning):
        ends = sorted({name.rpartition(".")[2] for name in linear_layers(tensors)})
        hint = f"use all-linear, or some of: {', '.join(ends)}"
        raise fail("lora-targets", "no layer has one of these names", hint, path="tuning.lora.targets")
    _refuse_wide_rank(tensors, settings.tuning)
    layers = number_of_layers(tensors)
    limit = settings.memory_limit
    usable = float("inf") if limit is None else limit * (1 - _KEPT_FREE)
    uncompiled = _why_not_compile(settings, tensors, lengths)
    step = float(lengths.mean()) * min(settings.tuning.batch_size, len(lengths))
    choices = []
    for micro_batches, most, halved in _ways_to_cut(settings, lengths, packed):
        for again in _ways_to_checkpoint(settings, layers):
            execution = Execution(packed, settings.fuses, not uncompiled, again, micro_batches, most)
            memory = estimate_memory(config, tensors, settings, execution)
            choices.append((execution, memory, _cost(execution, step, halved, layers, settings)))
            if memory.total <= usable:
                break  # with more layers checkpointed, the same micro-batches only take longer
    fitting = [choice for choice in choices if choice[1].total <= usable]
    if fitting:
        execution, memory, _ = min(fitting, key=lambda choice: choice[2])
    else:
        execution, memory, _ = min(choices, key=lambda choice: choice[1].total)
        if settings.tuning.memory != "auto":
            need, have = (f"{size / 1e9:.1f} GB" for size in (memory.total / (1 - _KEPT_FREE), limit or 0))
            hint = f"allow more, {ways_to_less(settings.tuning.method)}"
            raise fail("memory", f"training takes {need}, {have} are allowed", hint, path="tuning.memory.fit")
    reasons = _reasons(settings, execution, memory, layers, step, uncompiled, bool(fitting), len(lengths))
    return ComputePlan(execution, memory, limit, round(step), (*settings.notes, *reasons))


def _refuse_wide_rank(tensors: Shapes, tuning: TuningSpec) -> None:
    lora = tuning.lora
    if tuning.method not in ("lora", "qlora") or lora.init not in ("pissa", "olora", "loftq"):
        return
    for name, shape in adapted_layers(tensors, lora).items():
        if lora.r > min(shape):
            text = f"{lora.init} takes no rank of {lora.r} out of {name}, which is {shape[0]} x {shape[1]}"
            raise fail("init", text, "lower it, or use another init", path="tuning.lora.r")


def _ways_to_checkpoint(settings: TrainSettings, layers: int) -> list[int]:
    if settings.tuning.peft and settings.tuning.peft.type == "prefix_tuning":
        return [0]  # a layer that computes again is not handed the cache that holds the prefix
    return sorted({0, *range(0, layers, max(1, layers // 8)), layers})


def _ways_to_cut(
    settings: TrainSettings, lengths: np.ndarray, packed: bool
) -> Iterator[tuple[int, int, float]]:
    """Numbers of micro-batches to try, with a bound on their tokens and the share of them beyond it."""
    tuning = settings.tuning
    rows = max(1, min(tuning.batch_size, len(lengths)) // settings.processes)
    if tuning.micro_batch_size:
        numbers = [min(rows, -(-tuning.batch_size // (tuning.micro_batch_size * settings.processes)))]
    else:
        numbers = sorted(
            {n for n in (*range(1, 9), *(round(8 * 1.25**n) for n in range(40)), rows) if n <= rows}
        )
    for number in numbers:
        batching = Batching(tuning.batch_size, number, packed, tuning.seed, settings.processes)
        micro_batches = MicroBatches(lengths, batching)
        if tuning.shard:
            # A micro-batch of a sharded model cannot be halved, so there every step counts.
            yield number, micro_batches.longest(), 0.0
            continue
        sizes = micro_batches.sizes(_STEPS)
        for quantile in _QUANTILES if settings.processes == 1 else (1.0,):
            most = max(int(lengths.max()), int(np.quantile(sizes, quantile)))
            yield number, most, float((sizes > most).mean())


def _cost(execution: Execution, step: float, halved: float, layers: int, settings: TrainSettings) -> float:
    """What a step costs, in tokens of a micro-batch that has all the memory it wants."""
    again = execution.checkpointed / layers
    dequantized = (2 + again) * _DEQUANTIZED / 2 if settings.tuning.method == "qlora" else 0
    micro_batches = execution.micro_batches * (1 + halved)
    return step / settings.processes * (1 + _CHECKPOINTED * again) + micro_batches * (
        _MICRO_BATCH + dequantized
    )


def _why_not_compile(settings: TrainSettings, tensors: Shapes, lengths: np.ndarray) -> str:
    if settings.device == "cpu":
        return "on a CPU layers run as they are"
    if settings.tuning.peft:
        return f"{settings.tuning.peft.type} was not tried with it"
    if settings.device == find_device() and (reason := why_not_compile()):
        return reason
    if settings.tuning.shard:
        return "what is split over processes was not tried with it"
    work = float(lengths.sum()) * settings.tuning.epochs * count_parameters(tensors) / 1e9
    return "" if work >= _WORTH_COMPILING else "the run is too short to amortize compiling"


def _reasons(
    settings: TrainSettings,
    execution: Execution,
    memory: MemoryEstimate,
    layers: int,
    tokens: float,
    uncompiled: str,
    fits: bool,
    rows: int,
) -> Iterator[str]:
    tuning = settings.tuning
    limit = settings.memory_limit
    yield (
        f"batch of {counted(tuning.batch_size, 'row')} (about {tokens:,.0f} tokens): "
        + ("1 micro-batch" if (count := execution.micro_batches) == 1 else f"{count:,} micro-batches")
        + f" of at most {execution.max_tokens:,} tokens"
        + (", gradient accumulation" if count > 1 else "")
        + (f", on each of {settings.processes} data parallel processes" if settings.processes > 1 else "")
    )
    if execution.packed:
        yield "packing: rows share a micro-batch without padding, and no row attends to another"
    elif not tuning.packing:
        yield "padding: packing is off in the spec"
    elif settings.virtual_tokens:
        yield f"padding: {settings.virtual_tokens} virtual tokens precede each row"
    else:
        yield "packing disabled: no variable-length attention for this architecture"
    if tuning.shard:
        yield (
            f"FSDP: weights, gradients and optimizer state are sharded over {settings.processes} processes; "
            "each gathers two layers at a time, and keeps what belongs to no layer"
        )
    if execution.checkpointed == 0:
        yield "no gradient checkpointing: all activations are kept"
    else:
        yield f"gradient checkpointing in {execution.checkpointed} of {layers} layers, to fit in memory"
    if execution.fused:
        yield "LoRA is fused into the linear layers"
    elif settings.full:
        yield "all weights are trained, in float32"
    elif tuning.peft:
        yield f"{tuning.peft.type} runs as PEFT implements it, and is served beside the base"
    elif settings.device == "cuda":
        yield "LoRA is not fused: it has dropout or DoRA"
    yield f"torch.compile skipped: {uncompiled}" if uncompiled else "torch.compile: layers are compiled"
    have = (
        "the device's memory is unknown: give --device-memory"
        if limit is None
        else f"of {limit / 1e9:.1f} GB"
    )
    yield f"the estimate is {memory.total / 1e9:.1f} GB, {have}"
    steps = settings.steps(rows)
    if (rising := settings.warmup_steps(rows)) >= steps:
        key = "warmup_steps" if tuning.warmup_ratio is None else "warmup_ratio"
        yield f"the warmup takes {rising} of {steps} steps: lower tuning.{key}"
    if not fits:
        remedy = "it stops" if tuning.shard else "micro-batches are halved"
        yield f"this may not fit; {remedy} when memory runs out"
    if settings.device == "cuda" and execution.micro_batches == 1 and tokens < 4096:
        yield "steps this small leave a GPU idle: a larger tuning.batch_size would train faster"
