"""First values of LoRA that come from the base's own weights: PiSSA, OLoRA and LoftQ.

PiSSA and OLoRA take their first update out of the base, so training goes on from weights that nobody has
published. What they save is therefore the *difference* to their first values, an adapter of twice the rank
that belongs to the published base. LoftQ leaves the quantized base alone: its first update is what
quantizing lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from safetensors import safe_open
from torch import Tensor

from tunebuild.errors import fail
from tunebuild.models.base_model import wanted_files
from tunebuild.spec.tuning import LoraSpec

# PEFT's names. The exact decomposition takes minutes for a large matrix; this one a second, and is as good.
_NAMES: Mapping[str, Any] = {"default": True, "pissa": "pissa_niter_16", "loftq": True}
# Of the randomized decomposition: the error of quantizing has no steep spectrum, so it needs both.
_OVERSAMPLING, _ITERATIONS = 16, 8


def name_in_peft(lora: LoraSpec) -> Any:
    """What PEFT's configuration says for it."""
    return _NAMES.get(lora.init, lora.init)


def moves_base(lora: LoraSpec) -> bool:
    """Whether the base's weights are no longer the published ones once the adapter is made."""
    return lora.init in ("pissa", "olora")


def subtract_first(
    tensors: Mapping[str, Tensor], first: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An adapter for the published base from one whose first update was taken out of it.

    ``scale (B A - B0 A0)`` is one product of twice the rank: ``scale [B, -B0] [A; A0]``.

    Args:
        tensors: ``...lora_A.weight [rank, inputs]`` and ``...lora_B.weight [outputs, rank]``.
        first: the same when training began.
        config: PEFT's configuration.

    Returns:
        Tensors and configuration of the new adapter, of plain LoRA in any case.
    """
    found = {}
    for name, tensor in tensors.items():
        if ".lora_A." in name:
            found[name] = torch.cat([tensor, first[name].to(tensor)])
        else:
            found[name] = torch.cat([tensor, -first[name].to(tensor)], dim=1)
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config["use_rslora"] else rank)
    alpha = scale * 2 * rank
    changed = {
        "r": 2 * rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "use_rslora": False,
        "init_lora_weights": True,
    }
    return found, {**config, **changed}


@torch.no_grad()
def make_up_for_quantization(model: PeftModel, base: Path) -> None:
    """LoftQ: begin with the low-rank part of what NF4 lost of each weight.

    PEFT's own function runs on cards only, and leaves the adapter's scale out.

    Args:
        model: a quantized base with a fresh adapter.
        base: directory of the published weights.

    Raises:
        TunebuildError: a module's weight is not in the files under its own name.
    """
    from bitsandbytes.functional import dequantize_4bit

    files = _files(base)
    for name, layer in _adapted(model):
        if name not in files:
            text = f"the base's files have no {name}, which loftq begins from"
            raise fail("init", text, "use another init", path="tuning.lora.init")
        with safe_open(files[name], framework="pt") as file:
            published = file.get_tensor(name)
        held = layer.get_base_layer().weight
        lost = published.to(held.device, torch.float32) - dequantize_4bit(held.data, held.quant_state).float()
        rank, scale = layer.r["default"], layer.scaling["default"]
        q = min(rank + _OVERSAMPLING, *lost.shape)
        left, sizes, right = torch.svd_lowrank(lost, q, _ITERATIONS)
        root = (sizes[:rank] / scale).sqrt()
        layer.lora_A["default"].weight.copy_((right[:, :rank] * root).T)
        layer.lora_B["default"].weight.copy_(left[:, :rank] * root)


def _adapted(model: PeftModel) -> Iterator[tuple[str, Any]]:
    assert isinstance(model.peft_config["default"], LoraConfig)
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            yield name.removeprefix("base_model.model.") + ".weight", module


def _files(base: Path) -> dict[str, Path]:
    """The file of each tensor."""
    found = {}
    for path in (base / name for name in wanted_files(base) if name.endswith(".safetensors")):
        with safe_open(path, framework="pt") as file:
            found.update(dict.fromkeys(file.keys(), path))
    return found
