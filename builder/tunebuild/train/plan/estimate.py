"""Estimates the memory of a training from the shapes of the base model's tensors. Loads nothing.

The activation formula counts what autograd keeps for a decoder layer whose base is frozen: a linear layer
keeps its input for the adapter; a frozen weight needs nothing to pass a gradient through. TRL computes the
loss from tiles of the logits, which are gone before the layers' own peak.

Held against measured peaks by ``benchmarks/training/memory.py``; the figures stand in the tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from tunebuild.errors import fail
from tunebuild.train.plan.settings import Execution, TrainSettings
from tunebuild.train.plan.shapes import (
    Shapes,
    adapted_ends,
    adapted_layers,
    count_parameters,
    ends,
    folded_experts,
    has_experts,
    layer_of,
    linear_layers,
    linear_parameters,
    number_of_layers,
    trained_parameters,
)

_FLOAT32 = 4
# What older architectures call their sizes.
_OTHER_NAMES = {
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "vocab_size": (),
}
# NF4: half a byte a weight, a byte of scale for 64 of them, and 4 more bytes for 256 scales.
_NF4 = 0.5 + 1 / 64 + _FLOAT32 / (64 * 256)
# Tokens and words of the vocabulary in a tile of logits, in TRL's loss.
_TILE_TOKENS, _TILE_VOCABULARY = 4096, 32_768
#: Logits that are held at once for a head that is trained.
HEAD_TILE = 1 << 25
#: What a process holds before a model is loaded: libraries, and on a card its context and workspaces.
OVERHEAD = {"cpu": 700_000_000, "cuda": 900_000_000}


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


def estimate_memory(
    config: Mapping[str, Any], tensors: Shapes, settings: TrainSettings, execution: Execution
) -> MemoryEstimate:
    """Estimate the peak.

    Args:
        config: the model's ``config.json``.
        tensors: shapes of its tensors.
        settings: decided settings.
        execution: how a step is computed.
    """
    tuning, tokens = settings.tuning, execution.max_tokens
    width = 2 if settings.compute_dtype == "bfloat16" else _FLOAT32
    trained = trained_parameters(tensors, tuning) * _FLOAT32
    # Where rows of embedding and head are trained, both are copied with those in place, and have gradients.
    tables = [] if settings.full or not settings.new_tokens else list(ends(tensors).values())
    trained += sum(len(settings.new_tokens) * shape[1] for shape in tables) * _FLOAT32
    copies = sum(map(prod, tables)) * (width + _FLOAT32)
    text = _named(config.get("text_config", config))
    layers = number_of_layers(tensors)
    kept = _kept_by_a_layer(text, tensors, settings, execution, width)
    hidden = int(text["hidden_size"])
    again = execution.checkpointed
    # Layers that compute again keep their input; one of them is whole while its gradient is made, which also
    # needs room for the gradients of the MLP's activations.
    activations = tokens * ((layers - again) * kept + again * hidden * width)
    backward = tokens * ((kept if again else 0) + 2 * _inner(text, tensors) * width)
    # A tile of logits, and the gradient of what goes into the head; gone before the layers' own peak.
    tile = min(tokens, _TILE_TOKENS) * min(int(text["vocab_size"]), _TILE_VOCABULARY) * width
    if tuning.method in ("lora", "qlora") and adapted_ends(tensors, tuning.lora):
        # The head is called for some tokens at a time: their logits, those in 32 bits, and gradients of both.
        tile = max(tile, min(HEAD_TILE, tokens * int(text["vocab_size"])) * (2 * width + 3 * _FLOAT32))
    logits = tile + tokens * hidden * _FLOAT32
    # The base's own weight, once more, while it is dequantized. DoRA keeps it for the backward pass.
    linears = [prod(shape) for shape in linear_layers(tensors).values()]
    dense = (sum(linears) if tuning.lora.dora else max(linears, default=0)) * width
    parts, gathered = (settings.processes, _gathered(tensors)) if tuning.shard else (1, 0)
    # Layers are gathered in the precision of products, and their gradients summed in 32 bits.
    gradients = trained // parts + (gathered * _FLOAT32 if settings.full else 0)
    if settings.full and execution.micro_batches == 1:
        # A step's second micro-batch finds the gradients of its first. In a single one they take the place of
        # activations, but for the head's, which comes before those go. One that is longer than planned is
        # done in halves.
        gradients = max(int(text["vocab_size"]) * hidden * _FLOAT32, gradients - activations // 2)
    folded, folding = folded_experts(tensors, tuning)
    activations += (layers - again) * folded * width
    backward += ((folded if again else 0) + folding) * width
    return MemoryEstimate(
        weights=_weights(tensors, settings, width) // parts + gathered * width,
        adapters=0 if settings.full else trained // parts,
        gradients=gradients,
        optimizer=2 * trained // parts,
        activations=activations + backward + copies + (dense if tuning.method == "qlora" else 0),
        logits=max(0, logits - backward),
        overhead=OVERHEAD[settings.device],
    )


def _named(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the names that most architectures use for its sizes."""
    found = dict(config)
    for name, others in _OTHER_NAMES.items():
        if name not in found:
            found[name] = next((config[other] for other in others if other in config), None)
    if missing := [name for name in _OTHER_NAMES if found[name] is None]:
        message = f"config.json of the base does not say {', '.join(missing)}"
        raise fail("base-config", message, "is it a decoder of a known kind?", path="model.base")
    return found


def _weights(tensors: Shapes, settings: TrainSettings, width: int) -> int:
    if settings.full:
        # Products in 16 bits have the linear layers once more in those; what is split is converted as it is
        # gathered.
        again = 0 if settings.tuning.shard else linear_parameters(tensors) * (width % _FLOAT32)
        return count_parameters(tensors) * _FLOAT32 + again
    linear = linear_parameters(tensors) if settings.tuning.method == "qlora" else 0
    rest = count_parameters(tensors) - linear
    return int(linear * _NF4) + rest * width


def _gathered(tensors: Shapes) -> int:
    """Weights of a model that is split which a process holds whole at once.

    That is what is in no layer, the layer that is computed, and the next one, which is fetched meanwhile.
    """
    parts = Counter[int]()
    for name, shape in tensors.items():
        parts[layer_of(name)] += prod(shape)
    return parts.pop(-1, 0) + 2 * max(parts.values(), default=0)


def _inner(config: Mapping[str, Any], tensors: Shapes) -> int:
    """Width of the MLP, for a token: of all experts that it goes through."""
    if has_experts(tensors):
        wide = config.get("moe_intermediate_size") or config.get("intermediate_size")
        return int(wide or config["hidden_size"]) * int(config.get("num_experts_per_tok") or 1)
    shapes = [shape for name, shape in linear_layers(tensors).items() if layer_of(name) == 0]
    return max((max(shape) for shape in shapes), default=4 * int(config["hidden_size"]))


def _kept_by_a_layer(
    config: Mapping[str, Any], tensors: Shapes, settings: TrainSettings, execution: Execution, width: int
) -> int:
    """Bytes that a decoder layer keeps of each token until its gradient is made."""
    lora = settings.tuning.lora
    hidden, inner = int(config["hidden_size"]), _inner(config, tensors)
    adapters = adapted_layers(tensors, lora) if settings.tuning.method in ("lora", "qlora") else {}
    adapted = [shape for name, shape in adapters.items() if layer_of(name) == 0]
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or hidden // heads)
    key_values = int(config.get("num_key_value_heads") or heads)
    # What goes into both norms and comes out of them; query, key, value and the attention's output; the MLP's
    # gate, its other side, and their product.
    kept = (4 * hidden + 2 * (heads + key_values) * head + 3 * inner) * width
    if has_experts(tensors):
        # Each of them is given the token, and gives back one.
        kept += 2 * int(config.get("num_experts_per_tok") or 1) * hidden * width
    if settings.virtual_tokens:
        kept -= (
            2 * hidden * width
        )  # no linear layer has an adapter, so what comes out of the norms is not needed
    # Each operation keeps for itself: the MLP its gate's activation, which is also what compiled experts do,
    # and a norm its input in 32 bits.
    if not execution.compiled or has_experts(tensors):
        kept += inner * width
    if not execution.compiled:
        kept += hidden * _FLOAT32
    if not (execution.fused or settings.full or settings.virtual_tokens) and width != _FLOAT32:
        kept += 4 * hidden * width  # PEFT's layers: what they convert, scale and add
    if settings.full:
        # A norm, whose weight is trained, too, keeps what it scales. Under autocast that is in 32 bits, and
        # linear layers that share an input convert it each for itself.
        converts = width != _FLOAT32 and not settings.tuning.shard
        kept += 2 * hidden * _FLOAT32 + 3 * hidden * width if converts else hidden * _FLOAT32
    if lora.dora:
        kept += 3 * sum(shape[0] for shape in adapted) * width  # what it scales apart, before and after
    if lora.dropout:
        # Each layer keeps a copy of its input with dropout, and which values were dropped.
        kept += sum(shape[1] for shape in adapted) * (width + 1)
    return kept + len(adapted) * lora.r * width
