"""Reads a PEFT adapter from disk as plain updates to named weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tunebuild.errors import fail
from tunebuild.merge.low_rank import LowRankUpdate
from tunebuild.merge.safetensors_io import StoredTensor, list_tensors, tensors_of

_PREFIX = "base_model.model."
_LORA = re.compile(
    r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)(?:\.weight)?"
)

_ROWS = ".token_adapter.trainable_tokens_delta"

# What PEFT can do and the formulas below are not; merged by them it would be wrong without a word.
_UNSUPPORTED = (
    "lora_bias",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
)


@dataclass(frozen=True, slots=True)
class TrainedRows:
    """Some rows of a matrix: their numbers, ascending, and their values ``[rows, columns]``."""

    numbers: torch.Tensor
    values: torch.Tensor

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it belongs to a weight of this shape."""
        there = len(shape) == 2 and self.values.shape[1] == shape[1] and int(self.numbers.max()) < shape[0]
        return there and len(self.numbers) == len(self.values)

    def put(self, rows: torch.Tensor, first: int) -> torch.Tensor:
        """A copy of the rows from this number on, with those of them that were trained."""
        new = rows.clone()
        here = (self.numbers >= first) & (self.numbers < first + len(rows))
        new[self.numbers[here] - first] = self.values[here].to(new.dtype)
        return new


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter does to the weights of its base, by their names (``....q_proj.weight``).

    Attributes:
        updates: what is added to a weight.
        replacements: tensors that were trained whole, in any dtype; they take the base's place. They stay in
            their file until they are merged.
        rows: of a weight, those that were trained; they take the place of the base's.
    """

    updates: dict[str, LowRankUpdate]
    replacements: dict[str, StoredTensor]
    rows: dict[str, TrainedRows] = field(default_factory=dict)

    @property
    def changes(self) -> tuple[Mapping[str, object], ...]:
        """What it changes by names of weights, in each of the ways."""
        return self.updates, self.replacements, self.rows

    @property
    def touched(self) -> frozenset[str]:
        """Names of all weights that it changes."""
        return frozenset().union(*self.changes)


def read_adapter(directory: Path, base: Path | None = None) -> Adapter:
    """Read an adapter in PEFT's format.

    Args:
        directory: of the adapter.
        base: directory of its base, which an adapter of experts cannot be read without.

    Raises:
        TunebuildError: the adapter uses a feature that this merge does not have, or a part is missing.
    """
    config: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text("utf-8"))
    for feature in _UNSUPPORTED:
        if config.get(feature):
            raise fail("merge-unsupported", f"cannot merge an adapter with {feature}", path="tuning.lora")
    if config.get("bias", "none") != "none":
        raise fail("merge-unsupported", "cannot merge an adapter that trained biases", path="tuning.lora")
    parts: dict[str, dict[str, torch.Tensor]] = {}
    replacements: dict[str, StoredTensor] = {}
    rows: dict[str, TrainedRows] = {}
    weights = directory / "adapter_model.safetensors"
    in_file = {tensor.name: tensor for tensor in tensors_of(weights)}
    with safe_open(weights, framework="pt") as file:
        for stored in file.keys():  # noqa: SIM118 - not a mapping
            name = stored.removeprefix(_PREFIX)
            if match := _LORA.fullmatch(name):
                parts.setdefault(match["module"], {})[match["part"]] = file.get_tensor(stored)
            elif name.endswith(_ROWS):
                module = name.removesuffix(_ROWS)
                rows[f"{module}.weight"] = _rows_of(module, config, file.get_tensor(stored))
            elif name.endswith(".base_layer.weight"):
                continue  # PEFT adds the frozen weights of a head that has an adapter
            elif _is_saved_whole(name, config):
                replacements[name] = in_file[stored]
            else:
                message = f"cannot merge the adapter's tensor {stored}"
                raise fail("merge-unsupported", message, "adapt linear modules only", path="tuning.lora")
    wanted = {"A", "B", "magnitude_vector"} if config.get("use_dora") else {"A", "B"}
    updates: dict[str, LowRankUpdate] = {}
    if config.get("target_parameters") and base is not None:
        from tunebuild.merge.experts import wrapped_parameters

        for name, wrapped in wrapped_parameters(base, directory).items():
            one = parts.pop(name, {})
            if one.keys() != {"A", "B"}:
                raise fail("adapter-broken", f"the adapter of {wrapped.parameter} lacks a part")
            updates.update(wrapped.split(one["A"], one["B"]))
    for module, found in parts.items():
        if found.keys() == {"embedding_A", "embedding_B"}:
            # Of an embedding, whose rows are inputs: PEFT's factors are those of the transposed weight.
            a, b = found["embedding_B"].T.contiguous(), found["embedding_A"].T.contiguous()
            updates[f"{module}.weight"] = LowRankUpdate(a, b, _scale(module, config))
            continue
        if "embedding_A" in found and config.get("use_dora"):
            message = f"the merge has no DoRA for an embedding ({module})"
            raise fail("merge-unsupported", message, "set tuning.lora.dora: false", path="tuning.lora.dora")
        if found.keys() != wanted:
            raise fail("adapter-broken", f"the adapter of {module} lacks a part, or has one too many")
        updates[f"{module}.weight"] = LowRankUpdate(
            found["A"], found["B"], _scale(module, config), found.get("magnitude_vector")
        )
    if config.get("trainable_token_indices") and not rows:
        raise fail("adapter-broken", "the adapter lacks the rows of its trainable_token_indices")
    return Adapter(updates, replacements, rows)


def read_model(directory: Path) -> Adapter:
    """A model all of whose weights were trained: each of them is a replacement."""
    return Adapter({}, {tensor.name: tensor for tensor in list_tensors(directory)})


def _rows_of(module: str, config: Mapping[str, Any], values: torch.Tensor) -> TrainedRows:
    """Rows of a module's weight, with the numbers that PEFT's configuration has for them."""
    every = config.get("trainable_token_indices") or {}
    if isinstance(every, list):
        every = {module: every}  # PEFT means the embedding
    numbers: list[int] = next(
        (n for name, n in every.items() if module == name or module.endswith(f".{name}")), []
    )
    if len(numbers) != len(values):
        raise fail(
            "adapter-broken", f"the adapter has {len(values)} rows of {module}, and {len(numbers)} ids"
        )
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    return TrainedRows(torch.tensor(numbers)[order], values[order])


def _is_saved_whole(name: str, config: Mapping[str, Any]) -> bool:
    saved = config.get("modules_to_save") or ()
    if config.get("ensure_weight_tying") and saved and name.rpartition(".")[0].endswith("lm_head"):
        return True  # PEFT names the embedding alone and writes the head, too
    # PEFT's rule: the name of the module, or of one around it, ends with one of these.
    ends = [match.start() for match in re.finditer(r"\.", name)]
    return any(name[:end].endswith(module) for end in ends for module in saved)


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
