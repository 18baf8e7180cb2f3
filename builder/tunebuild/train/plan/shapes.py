"""What the stored tensors of a base say of its layers: how many, how wide, which linear, which adapted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path

from tunebuild.models.base_model import wanted_files
from tunebuild.models.safetensors_header import read_header
from tunebuild.spec.tuning import LoraSpec, PeftSpec, TuningSpec

#: Tensor name -> shape.
Shapes = Mapping[str, tuple[int, ...]]
# Experts are stored apart and loaded as one parameter, which no adapter and no 4 bits reach.
_NO_LINEAR = re.compile(r"embed|lm_head|\bwte\b|\bwpe\b|\bexperts\.\d+\.")
# Parts of a multimodal model that text does not run through.
_NO_TEXT = re.compile(r"(?:^|\.)(?:vision|visual|audio|multi_modal|mm)(?:_\w+)?\.")
_EXPERT = re.compile(r"\.experts\.\d+\.(\w+)\.weight$")
_DOWN = ("down_proj", "w2")
_HEADS = frozenset({"lm_head", "embed_out", "output"})
_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")


def read_tensors(directory: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a model directory, from the headers of its files."""
    shards = [directory / name for name in wanted_files(directory) if name.endswith(".safetensors")]
    return {name: tuple(entry["shape"]) for shard in shards for name, entry in read_header(shard).items()}


def count_parameters(tensors: Shapes) -> int:
    """All weights of a model."""
    return sum(map(prod, tensors.values()))


def adapter_parameters(tensors: Shapes, lora: LoraSpec) -> int:
    """Trainable parameters: ``r * (in + out)`` for each linear layer that gets an adapter."""
    adapted = (*adapted_layers(tensors, lora).values(), *adapted_ends(tensors, lora))
    layers = sum(lora.r * sum(shape) for shape in adapted)
    return layers + (_expert_parameters(tensors, lora.r) if lora.targets == "all-linear" else 0)


def _expert_parameters(tensors: Shapes, rank: int) -> int:
    """Of experts that are stored apart. Gate and up projection are one matrix, with both their ranks."""
    found = 0
    for name, shape in tensors.items():
        if len(shape) == 2 and (match := _EXPERT.search(name)):
            found += rank * (sum(shape) if match[1] in _DOWN else 2 * shape[0] + shape[1])
    return found


def trained_parameters(tensors: Shapes, tuning: TuningSpec) -> int:
    """What the optimizer changes: an adapter, or all weights."""
    if tuning.method == "full":
        return count_parameters(tensors)
    return (
        _other_parameters(tensors, tuning.peft) if tuning.peft else adapter_parameters(tensors, tuning.lora)
    )


def _other_parameters(tensors: Shapes, peft: PeftSpec) -> int:
    """At most: which layers IA3 scales and how wide keys and values are is for PEFT and the model to say."""
    if peft.type == "ia3":
        return sum(max(shape) for shape in linear_layers(tensors).values())
    hidden = max((shape[1] for name, shape in tensors.items() if "embed" in name or "wte" in name), default=0)
    return (
        peft.virtual_tokens * hidden * (2 * number_of_layers(tensors) if peft.type == "prefix_tuning" else 1)
    )


def number_of_layers(tensors: Shapes) -> int:
    """Decoder layers."""
    return max((layer_of(name) + 1 for name in tensors if not _NO_TEXT.search(name)), default=0) or 1


def linear_parameters(tensors: Shapes) -> int:
    """Weights of the linear layers, the head left out: what a token is multiplied with."""
    return sum(prod(shape) for shape in linear_layers(tensors).values())


def linear_layers(tensors: Shapes) -> dict[str, tuple[int, ...]]:
    """Shapes, ``(out, in)``, of the linear layers by module name; the head is not one of them."""
    return {
        name.removesuffix(".weight"): shape
        for name, shape in tensors.items()
        if name.endswith(".weight") and len(shape) == 2 and not _NO_LINEAR.search(name)
    }


def adapted_layers(tensors: Shapes, lora: LoraSpec) -> dict[str, tuple[int, ...]]:
    """Shapes, ``(out, in)``, of the linear layers that LoRA adapts."""
    linears = {n: s for n, s in linear_layers(tensors).items() if not _NO_TEXT.search(n)}
    if lora.targets == "all-linear":
        return linears
    return {n: s for n, s in linears.items() if n.rpartition(".")[2] in lora.targets}


def adapted_ends(tensors: Shapes, lora: LoraSpec) -> tuple[tuple[int, ...], ...]:
    """Shapes of the embedding and the head, those of them that LoRA adapts: one where they are one tensor."""
    if lora.targets == "all-linear":
        return ()
    named = {target.rpartition(".")[2] for target in lora.targets}
    stored = {n.removesuffix(".weight").rpartition(".")[2]: s for n, s in ends(tensors).items()}
    found = [shape for name, shape in stored.items() if name in named]
    if not found and named & _HEADS:  # a head that is stored as the embedding
        found = [max(stored.values(), key=prod, default=(0, 0))]
    return tuple(found)


def ends(tensors: Shapes) -> dict[str, tuple[int, ...]]:
    """Matrices of no layer that have as many rows as the largest of them: the vocabulary."""
    outside = {n: s for n, s in tensors.items() if len(s) == 2 and layer_of(n) < 0 and n.endswith(".weight")}
    rows = max((shape[0] for shape in outside.values()), default=0)
    return {name: shape for name, shape in outside.items() if shape[0] == rows}


def folded_experts(tensors: Shapes, tuning: TuningSpec) -> tuple[int, int]:
    """Weights of a layer's adapted experts, and of the largest parameter among them.

    PEFT adds the whole update to such a parameter in each forward pass. The sum is kept for the backward
    pass, which makes a gradient for one of them at a time.
    """
    if tuning.method not in ("lora", "qlora") or tuning.peft or tuning.lora.targets != "all-linear":
        return 0, 0
    down = rest = 0
    for name, shape in tensors.items():
        if layer_of(name) == 0 and len(shape) == 2 and (match := _EXPERT.search(name)):
            down, rest = (down + prod(shape), rest) if match[1] in _DOWN else (down, rest + prod(shape))
    return down + rest, max(down, rest)


def has_experts(tensors: Shapes) -> bool:
    """Whether the first layer has experts, stored apart or in one tensor."""
    return any(layer_of(name) == 0 and ".experts." in name for name in tensors)


def layer_of(name: str) -> int:
    """Number of the layer that a tensor is in; -1 of none."""
    match = _LAYER.search(name)
    return int(match[1]) if match else -1
