"""Reads a PEFT adapter from disk as plain updates to named weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tunebuild.errors import fail

_LORA = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")

# What PEFT can do and a plain ``W + scale * B @ A`` is not; merged by that formula it would be wrong
# without a word.
_UNSUPPORTED = (
    "use_dora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_qalora",
)


@dataclass(frozen=True, slots=True)
class LowRankUpdate:
    """``scale * b @ a``, to be added to a weight.

    Attributes:
        a: ``[rank, inputs]``.
        b: ``[outputs, rank]``.
        scale: alpha / rank, or alpha / sqrt(rank) for rsLoRA.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def add_to(self, weight: torch.Tensor) -> torch.Tensor:
        """The updated weight in float32; in the order of operations of PEFT, so bit-equal to it."""
        return weight.float() + (self.b.float() @ self.a.float()) * self.scale


def read_adapter(directory: Path) -> dict[str, LowRankUpdate]:
    """The updates of an adapter, by the name of the weight they belong to (``....q_proj.weight``).

    Raises:
        TunebuildError: the adapter uses a feature that this merge does not have, or a half is missing.
    """
    config: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text("utf-8"))
    for feature in _UNSUPPORTED:
        if config.get(feature):
            raise fail("merge-unsupported", f"cannot merge an adapter with {feature}", path="tuning.lora")
    if config.get("bias", "none") != "none":
        raise fail("merge-unsupported", "cannot merge an adapter that trained biases", path="tuning.lora")
    halves: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(directory / "adapter_model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            match = _LORA.fullmatch(name)
            if match is None:
                message = f"cannot merge the adapter's tensor {name}"
                raise fail("merge-unsupported", message, "adapt linear modules only", path="tuning.lora")
            halves.setdefault(match["module"], {})[match["half"]] = file.get_tensor(name)
    updates = {}
    for module, pair in halves.items():
        if pair.keys() != {"A", "B"}:
            raise fail("adapter-broken", f"the adapter of {module} lacks a half")
        updates[f"{module}.weight"] = LowRankUpdate(pair["A"], pair["B"], _scale(module, config))
    return updates


def _scale(module: str, config: Mapping[str, Any]) -> float:
    rank = _pattern(module, config.get("rank_pattern"), config["r"])
    alpha = _pattern(module, config.get("alpha_pattern"), config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _pattern(module: str, patterns: Mapping[str, float] | None, default: float) -> float:
    # PEFT's rule: the first key that matches as a suffix of the module's name.
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default
