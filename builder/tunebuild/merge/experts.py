"""Reads what an adapter does to parameters that are no linear layer: the experts, which are one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tunebuild.errors import fail
from tunebuild.merge.low_rank import LowRankUpdate
from tunebuild.models.skeleton import StoredPart

_PREFIX = "base_model.model."
_ADAPTER = "default"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A parameter that PEFT adapts by itself.

    Attributes:
        parameter: its name in the model.
        experts: matrices in it.
        inputs_last: whether a matrix is ``[outputs, inputs]``.
        scale: of the update.
    """

    parameter: str
    experts: int
    inputs_last: bool
    scale: float

    def split(self, a: torch.Tensor, b: torch.Tensor) -> Iterator[tuple[str, LowRankUpdate]]:
        """The update of each matrix, by its name as :func:`expert_name` makes it.

        Args:
            a: ``[experts * rank, inputs]``, one expert after the other.
            b: ``[outputs, rank * experts]``, the expert changing fastest.
        """
        if self.experts == 1:
            yield self.parameter, LowRankUpdate(a, b, self.scale)
            return
        rank = a.shape[0] // self.experts
        for number in range(self.experts):
            first, second = a[number * rank : (number + 1) * rank], b[:, number :: self.experts]
            low = (first, second) if self.inputs_last else (second.T, first.T)
            update = LowRankUpdate(low[0].contiguous(), low[1].contiguous(), self.scale)
            yield expert_name(self.parameter, number), update


def expert_name(parameter: str, number: int) -> str:
    """The name of one expert's matrix in the parameter of all."""
    return f"{parameter}[{number}]"


def wrapped_parameters(base: Path, adapter: Path) -> dict[str, Wrapped]:
    """The parameters that an adapter of PEFT's adapts, by the name under which its tensors are stored.

    Where two parameters of one module are adapted, PEFT nests its layers, in an order of its own.
    """
    from peft import PeftConfig, get_peft_model
    from peft.tuners.lora.layer import ParamWrapper

    from tunebuild.models.skeleton import build_skeleton

    adapted = get_peft_model(
        build_skeleton(base), PeftConfig.from_pretrained(adapter), low_cpu_mem_usage=True
    )
    found = {}
    for full, layer in adapted.named_modules():
        if isinstance(layer, ParamWrapper):
            name = full.removeprefix(_PREFIX)
            parameter = f"{name.replace('.base_layer', '')}.{layer.parameter_name}"
            found[name] = Wrapped(
                parameter,
                layer.num_experts,
                layer.num_experts == 1 or bool(layer._did_swap_in_out_features),
                float(layer.scaling[_ADAPTER]),
            )
    return found


def under_experts_names(
    updates: Mapping[str, LowRankUpdate], parts: Mapping[str, StoredPart], rows: Mapping[str, int]
) -> dict[str, LowRankUpdate]:
    """Updates of experts by the names of the tensors that hold them, each with its own rows.

    Args:
        updates: by names of parameters, and of experts' matrices.
        parts: what each stored tensor is.
        rows: of each stored tensor.

    Raises:
        TunebuildError: an expert is not stored as a tensor of its own.
    """
    stored: dict[str, list[str]] = {}
    for name, part in parts.items():
        if part.expert is not None:
            stored.setdefault(expert_name(part.parameter, part.expert), []).append(name)
    found = {}
    for name, update in updates.items():
        if not name.endswith("]"):
            found[name] = update
            continue
        if name not in stored:
            message = f"the base has no tensor of its own for {name}"
            raise fail("adapter-unmatched", message, path="tuning.lora.targets")
        for tensor in stored[name]:
            first = sum(rows[one] for one in parts[tensor].before)
            found[tensor] = replace(update, b=update.b[first : first + rows[tensor]].contiguous())
    return found
