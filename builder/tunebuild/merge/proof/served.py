"""Proves that an adapter which was loaded to be served is the one that was trained."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch

from tunebuild.errors import Diagnostic, TunebuildError
from tunebuild.merge.proof._files import Slab, slabs_of
from tunebuild.merge.proof._peft import WEIGHTS, Module, base_replaced, read, skeleton_of, tell

_ROUNDING = 1e-4  # relative: products in float32 of factors of some thousand values
_HINT = "what would be served is not the trained model, and no image was made; please report it"
_PREFIX = "base_model.model."


def prove_served(model: Any, *, base: Path, adapter: Path) -> tuple[int, float]:
    """Prove that each tensor of an adapter is in a loaded model once, and that layers add what it says.

    Args:
        model: as the server loads it, with the adapter on top.
        base: directory of the published weights.
        adapter: directory of the adapter.

    Returns:
        How many tensors the adapter has, and the largest deviation of a LoRA layer's answer to random inputs
        as a share of the answer; 0 for adapters of other kinds.

    Raises:
        TunebuildError: ``proof-failed``, one diagnostic for each tensor or module that is not as trained.
    """
    from peft import get_peft_model_state_dict

    stored = {slab.name: slab for slab in slabs_of(adapter / WEIGHTS)}
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    wrong = [
        f"{name} of the adapter is {'loaded otherwise than stored' if name in loaded else 'not loaded'}"
        for name, slab in sorted(stored.items())
        if not name.endswith(".base_layer.weight") and not _same(slab, loaded.get(name))
    ]
    extra = sorted(loaded.keys() - stored.keys())
    wrong += [f"{name} is in the served model, and not in the adapter" for name in extra]
    worst = 0.0
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    if config["peft_type"] == "LORA" and not wrong:
        for module in tell(skeleton_of(base), adapter).modules.values():
            off = _deviation(module, model.get_submodule(_PREFIX + module.name))
            worst = max(worst, off)
            if not off <= _ROUNDING:
                text = f"{module.name}: what the served layer adds is {off:.2g} of it off what was trained"
                wrong.append(text)
    if wrong:
        raise TunebuildError(tuple(Diagnostic("proof-failed", text, _HINT) for text in wrong))
    return len(stored), worst


def _same(slab: Slab, value: torch.Tensor | None) -> bool:
    if value is None or tuple(value.shape) != slab.shape:
        return False
    return torch.equal(read(slab).to(value.dtype), value.detach().cpu())


def _deviation(module: Module, layer: Any) -> float:
    """How far the loaded layer's own answer is from what its adapter's file says."""
    if module.kind != "linear":
        return 0.0  # its tensors were compared
    generator = torch.Generator().manual_seed(zlib.crc32(module.name.encode()))
    inputs = torch.randn(4, layer.in_features, generator=generator)
    weight = layer.get_base_layer().weight if layer.lora_magnitude_vector else None
    expected = module.added(inputs.double(), None if weight is None else weight.double().cpu())
    factor = next(iter(layer.lora_A.values())).weight
    with torch.inference_mode(), base_replaced(layer, None if weight is None else weight.to(factor)):
        answer = (layer(inputs.to(factor)) - layer.base_layer(inputs.to(factor))).double().cpu()
    size = float(expected.norm())
    return float((answer - expected).norm()) / size if size else float(answer.norm() > 0)
