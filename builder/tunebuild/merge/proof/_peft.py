"""What an adapter does to a model, told by PEFT's own layers.

PEFT builds its layers around a skeleton of the model that holds no weights, so which modules, ranks and
scales are meant is PEFT's word. Tensors are read from the adapter's file as each module is looked at: those
of one module are in memory at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from tunebuild.errors import fail
from tunebuild.merge.proof._files import Slab, slabs_of

_PREFIX = "base_model.model."
_ADAPTER = "default"
WEIGHTS = "adapter_model.safetensors"
_DAMAGED = "train again, in a store after 'tunebuild cache verify --remove'"


@dataclass(frozen=True, slots=True)
class Low:
    """A low-rank update of a weight, in the orientation in which the weight is stored.

    Attributes:
        left, right: ``[rows, rank]`` and ``[rank, columns]`` in float64.
        scale: by which their product is multiplied.
        magnitude: lengths that rows have afterwards, or columns where rows are inputs; with DoRA.
        inputs_first: whether a row of the weight belongs to an input.
    """

    left: torch.Tensor
    right: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None = None
    inputs_first: bool = False


@dataclass(frozen=True, slots=True)
class Module:
    """A module that the adapter updates.

    Attributes:
        name: of the module in the model.
        parameter: name of the weight.
        layer: PEFT's layer.
        tensors: where the layer's tensors are, by its own names for them.
    """

    name: str
    parameter: str
    layer: Any
    tensors: dict[str, Slab]

    @property
    def kind(self) -> str:
        """``linear``, ``embedding``, or ``experts``: one parameter that is a stack of matrices."""
        if hasattr(self.layer, "parameter_name"):
            return "experts"
        return "embedding" if any("embedding" in name for name in self.tensors) else "linear"

    def low(self) -> Low:
        """The update of a linear layer or an embedding."""
        parts = {name.partition(".")[0]: read(slab) for name, slab in self.tensors.items()}
        scale, magnitude = float(self.layer.scaling[_ADAPTER]), parts.get("lora_magnitude_vector")
        magnitude = None if magnitude is None else magnitude.flatten()
        if self.kind == "embedding":
            return Low(parts["lora_embedding_A"].T, parts["lora_embedding_B"].T, scale, magnitude, True)
        a, b = parts["lora_A"], parts["lora_B"]
        if self.layer.fan_in_fan_out:
            return Low(a.T, b.T, scale, magnitude, True)
        return Low(b, a, scale, magnitude)

    def low_of_experts(self) -> list[Low]:
        """The update of each expert, from the factors that PEFT makes of the tensors."""
        if self.layer.num_experts == 1:  # a plain matrix, such as a router's
            parts = {name.partition(".")[0]: read(slab) for name, slab in self.tensors.items()}
            return [Low(parts["lora_B"], parts["lora_A"], float(self.layer.scaling[_ADAPTER]))]
        for name, slab in self.tensors.items():
            getattr(self.layer, name.partition(".")[0])[_ADAPTER].weight = nn.Parameter(read(slab).float())
        try:
            lefts, rights, scale = self.layer.get_delta_factors(_ADAPTER)
            with torch.no_grad():
                return [
                    Low(left.double(), right.double(), float(scale))
                    for left, right in zip(lefts, rights, strict=True)
                ]
        finally:
            self.layer.to_empty(device="meta")

    def added(
        self, inputs: torch.Tensor, base: torch.Tensor | None = None, rows: slice | None = None
    ) -> torch.Tensor:
        """What PEFT's own layer adds to what its base layer answers.

        Args:
            inputs: ``[probes, inputs]`` in float64, or numbers of an embedding's rows.
            base: the weight as it is stored, in float64, for DoRA, which depends on it.
            rows: outputs, if it is some of them.
        """
        layer = self.layer
        tensors = {name: read(slab) for name, slab in self.tensors.items()}
        if rows is not None:
            cut = ("lora_B", "lora_magnitude_vector")
            tensors = {n: t.flatten()[rows] if n.startswith(cut[1]) else t for n, t in tensors.items()}
            tensors = {n: t[rows] if n.startswith(cut[0]) else t for n, t in tensors.items()}
        outputs = len(next(t for n, t in tensors.items() if n.startswith(("lora_B", "lora_embedding_B"))))
        with torch.no_grad(), base_replaced(layer, base, outputs, embedding=self.kind == "embedding"):
            answer = functional_call(layer, tensors, (inputs,))
            return torch.as_tensor(answer - layer.base_layer(inputs))


@contextmanager
def base_replaced(
    layer: Any, weight: torch.Tensor | None, outputs: int | None = None, *, embedding: bool = False
) -> Iterator[None]:
    """Have a layer of PEFT's stand on a weight, or on nothing, so that only what it adds is computed.

    Args:
        layer: the layer.
        weight: as it is stored; ``None`` for a base layer that answers zeros.
        outputs: of that; the layer's own if left out.
        embedding: whether inputs are numbers of rows.
    """
    before, doras = layer.base_layer, [] if embedding else list(layer.lora_magnitude_vector.values())
    size = int(layer.out_features) if outputs is None else outputs
    layer.base_layer = _Base(size, weight, inputs_first=embedding or bool(layer.fan_in_fan_out))
    for dora in doras:
        # PEFT sends a unit matrix through both factors, which sharded training needs and memory does not.
        dora.get_lora_weight = _product
    try:
        yield
    finally:
        layer.base_layer = before
        for dora in doras:
            del dora.get_lora_weight


class _Base(nn.Module):
    """Stands where the base layer was: answers with a weight if one is given, else with nothing."""

    def __init__(self, outputs: int, weight: torch.Tensor | None, *, inputs_first: bool) -> None:
        super().__init__()
        self.outputs, self.inputs_first, self.bias = outputs, inputs_first, None
        # What PEFT asks an embedding for; none of it changes a row's values.
        self.padding_idx = self.max_norm = None
        self.norm_type, self.scale_grad_by_freq, self.sparse = 2.0, False, False
        self.weight = None if weight is None else nn.Parameter(weight, requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not inputs.is_floating_point():
            if self.weight is not None:
                return self.weight[inputs]
            return torch.zeros(*inputs.shape, self.outputs, dtype=torch.float64)
        if self.weight is not None:
            return inputs @ (self.weight if self.inputs_first else self.weight.T)
        return inputs.new_zeros(*inputs.shape[:-1], self.outputs)


@dataclass(frozen=True, slots=True)
class AdapterTold:
    """What an adapter does, by names of parameters of the model.

    Attributes:
        modules: those that it updates.
        whole: tensors that were trained whole, and take the base's place.
        frozen: copies of base tensors that PEFT keeps beside an adapter of a head.
        rows: tensors that hold some rows of a weight, with the numbers of those. Two weights that PEFT ties
            have the same.
    """

    modules: dict[str, Module]
    whole: dict[str, Slab]
    frozen: dict[str, Slab]
    rows: dict[str, tuple[Slab, tuple[int, ...]]]

    @property
    def count(self) -> int:
        """Tensors of the adapter that are told of."""
        updates = sum(len(module.tensors) for module in self.modules.values())
        rows = {slab.name for slab, _ in self.rows.values()}
        return updates + len(self.whole) + len(self.frozen) + len(rows)


def skeleton_of(directory: Path) -> Any:
    """The model of a base, without weights."""
    from transformers import AutoConfig

    from tunebuild.serve.engines.classes import model_class

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        model = model_class(config).from_config(config, trust_remote_code=False, dtype=torch.float32)
    model.tie_weights()
    return model


def tell(model: Any, adapter: Path) -> AdapterTold:
    """What an adapter does to a model.

    Args:
        model: a skeleton; PEFT puts its layers into it.
        adapter: a directory in PEFT's format.

    Raises:
        TunebuildError: a tensor of the adapter has no place in the model, or one is missing.
    """
    from peft import PeftConfig, get_peft_model
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper
    from peft.utils.other import TrainableTokensWrapper

    file = adapter / WEIGHTS
    stored = {slab.name: slab for slab in slabs_of(file)}
    config = PeftConfig.from_pretrained(adapter)
    adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
    used: Counter[str] = Counter()

    def slab(name: str) -> Slab:
        for key in (name.replace(f".{_ADAPTER}", ""), name.replace(f".{_ADAPTER}.weight", "")):
            if key in stored:
                used[key] += 1
                return stored[key]
        raise fail("proof-failed", f"{file.name} of the adapter lacks {name}", _DAMAGED)

    told = AdapterTold({}, {}, {}, {})
    rows: dict[int, tuple[Slab, tuple[int, ...]]] = {}
    tied: dict[str, int] = {}
    for full, module in adapted.named_modules(remove_duplicate=False):
        name = full.removeprefix(_PREFIX)
        if isinstance(module, LoraLayer):
            own = [n for n, _ in module.named_parameters() if n.startswith("lora_") and f".{_ADAPTER}" in n]
            plain = name.replace(".base_layer", "")
            weight = getattr(module, "parameter_name", "weight")
            parameter = f"{plain}.{weight}" if plain else weight
            told.modules[parameter] = Module(plain, parameter, module, {n: slab(f"{full}.{n}") for n in own})
        elif isinstance(module, ModulesToSaveWrapper):
            for inner, _ in module.modules_to_save[_ADAPTER].named_parameters():
                told.whole[f"{name}.{inner}"] = slab(f"{full}.{inner}")
        elif isinstance(module, TrainableTokensWrapper) and module.token_adapter.tied_adapter is not None:
            tied[f"{name}.weight"] = id(module.token_adapter.tied_adapter)
        elif isinstance(module, TrainableTokensWrapper):
            layer = module.token_adapter
            held = slab(f"{full}.token_adapter.trainable_tokens_delta.{_ADAPTER}")
            rows[id(layer)] = told.rows[f"{name}.weight"] = held, tuple(layer.token_indices[_ADAPTER])
    told.rows.update({name: rows[layer] for name, layer in tied.items()})
    for key, one in stored.items():
        if key.endswith(".base_layer.weight") and key not in used:
            told.frozen[key.removeprefix(_PREFIX).replace(".base_layer", "")] = one
            used[key] += 1
    if wrong := sorted(key for key in stored if used[key] != 1):
        times = f"is used {used[wrong[0]]} times" if used[wrong[0]] else "is not used by any layer of PEFT"
        raise fail("proof-failed", f"the adapter's tensor {wrong[0]} {times}", _DAMAGED)
    return told


def read(slab: Slab) -> torch.Tensor:
    """A whole tensor in float64."""
    with slab.file.open("rb", buffering=0) as file:
        return slab.values(file.fileno()).view(slab.shape).double()


def _product(lora_A: Any, lora_B: Any, adapter_name: str | None = None) -> torch.Tensor:
    return torch.as_tensor(lora_B.weight @ lora_A.weight)
