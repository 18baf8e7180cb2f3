"""Estimates the memory of a training from the shapes of the base model's tensors. Loads nothing.

TRL computes the loss from tiles of the logits, which are gone before the layers' own peak where activations
are computed again. Held against measured peaks by ``benchmarks/memory_estimate.py``: within 10 % on nine
shapes and settings from 0.5 to 7 billion parameters on an H100.

The activation formula counts what autograd keeps for a decoder layer whose base is frozen: a linear layer
keeps its input only for the adapter, in 32 bits; a frozen weight needs nothing to pass a gradient through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from tunebuild.lock.base_model import BaseModel
from tunebuild.lock.weights_file import read_header
from tunebuild.spec.tuning import LoraSpec
from tunebuild.train.settings import TrainSettings

#: Tensor name -> shape.
Shapes = Mapping[str, tuple[int, ...]]

_NO_LINEAR = re.compile(r"embed|lm_head|\bwte\b|\bwpe\b")
_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
_FLOAT32 = 4
# NF4: half a byte a weight, a byte of scale for 64 of them, and 4 more bytes for 256 scales.
_NF4 = 0.5 + 1 / 64 + _FLOAT32 / (64 * 256)
# Tokens and words of the vocabulary in a tile of logits, in TRL's loss.
_TILE_TOKENS, _TILE_VOCABULARY = 4096, 32_768
# What a process holds before a model is loaded: libraries, and on a card its context and workspaces.
_OVERHEAD = {"cpu": 700_000_000, "cuda": 900_000_000}


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes at the peak of a training step, by what they are for."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return (
            self.weights
            + self.adapters
            + self.gradients
            + self.optimizer
            + self.activations
            + self.logits
            + self.overhead
        )


def read_tensors(base: BaseModel) -> dict[str, tuple[int, ...]]:
    """Shapes of a base model's tensors, from the headers of its files."""
    shards = [base.directory / f.path for f in base.files if f.path.endswith(".safetensors")]
    return {name: tuple(entry["shape"]) for shard in shards for name, entry in read_header(shard).items()}


def adapter_parameters(tensors: Shapes, lora: LoraSpec) -> int:
    """Trainable parameters: ``r * (in + out)`` for each linear layer that gets an adapter."""
    return sum(lora.r * sum(shape) for shape in _targets(tensors, lora).values())


def estimate_memory(
    config: Mapping[str, Any], tensors: Shapes, settings: TrainSettings, *, tokens_per_row: int
) -> MemoryEstimate:
    """Estimate the peak.

    Args:
        config: the model's ``config.json``.
        tensors: shapes of its tensors.
        settings: decided settings.
        tokens_per_row: the longest row.
    """
    tuning = settings.tuning
    adapters = adapter_parameters(tensors, tuning.lora) * _FLOAT32
    tokens = settings.rows_per_pass * tokens_per_row
    width = 2 if settings.compute_dtype == "bfloat16" else _FLOAT32
    text = config.get("text_config", config)
    layers, layer = _activations(text, tensors, settings.tuning.lora, width)
    # A tile of logits, and the gradient of what goes into the head.
    tile = min(tokens, _TILE_TOKENS) * min(int(text["vocab_size"]), _TILE_VOCABULARY) * width
    logits = tile + tokens * int(text["hidden_size"]) * _FLOAT32
    if settings.checkpoints_activations:
        kept = layers * int(text["hidden_size"]) * width
        activations = tokens * (kept + layer)
        logits = max(0, logits - tokens * layer)
    else:
        activations = tokens * layers * layer
    return MemoryEstimate(
        weights=_weights(tensors, tuning.method == "qlora", width),
        adapters=adapters,
        gradients=adapters,
        optimizer=2 * adapters,
        activations=activations,
        logits=logits,
        overhead=_OVERHEAD[settings.device],
    )


def _linears(tensors: Shapes) -> dict[str, tuple[int, ...]]:
    """Shapes, ``(out, in)``, of the linear layers by module name; the head is not one of them."""
    return {
        name.removesuffix(".weight"): shape
        for name, shape in tensors.items()
        if name.endswith(".weight") and len(shape) == 2 and not _NO_LINEAR.search(name)
    }


def _targets(tensors: Shapes, lora: LoraSpec) -> dict[str, tuple[int, ...]]:
    linears = _linears(tensors)
    if lora.targets == "all-linear":
        return linears
    return {n: s for n, s in linears.items() if n.rpartition(".")[2] in lora.targets}


def _weights(tensors: Shapes, quantised: bool, width: int) -> int:
    linear = sum(prod(shape) for shape in _linears(tensors).values()) if quantised else 0
    rest = sum(prod(shape) for shape in tensors.values()) - linear
    return int(linear * _NF4) + rest * width


def _activations(config: Mapping[str, Any], tensors: Shapes, lora: LoraSpec, width: int) -> tuple[int, int]:
    """Number of layers, and bytes that one of them keeps for each token."""
    layers = max((int(m[1]) + 1 for m in map(_LAYER.search, tensors) if m), default=1)
    hidden = int(config["hidden_size"])
    per_layer = [shape for name, shape in _linears(tensors).items() if _index(name) == 0]
    adapted = [shape for name, shape in _targets(tensors, lora).items() if _index(name) == 0]
    inner = max((max(shape) for shape in per_layer), default=4 * hidden)
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or hidden // heads)
    # Two norms keep their input in 32 bits; attention keeps q, k, v and its output; the MLP its gate, the
    # gate's activation and the product's other side.
    floats = 2 * hidden * _FLOAT32 + 5 * heads * head * width + 3 * inner * width
    # An adapter keeps its input, cast to 32 bits, and its inner product. In float32 nothing is cast, and
    # layers that read the same input share it: attention's, the MLP's, and the two outputs' inputs.
    if width == _FLOAT32:
        floats += (2 * hidden + inner) * _FLOAT32
    else:
        floats += sum(shape[1] for shape in adapted) * _FLOAT32 + (2 * hidden + inner) * width
    return layers, floats + len(adapted) * lora.r * _FLOAT32


def _index(name: str) -> int:
    match = _LAYER.search(name)
    return int(match[1]) if match else -1
