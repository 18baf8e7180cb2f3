"""Merges an adapter into a checkpoint, tensor by tensor: the model is never whole in memory."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from tunebuild.errors import fail
from tunebuild.merge.adapter_file import LowRankUpdate, read_adapter
from tunebuild.merge.nf4 import NF4RoundTrip
from tunebuild.merge.safetensors_io import (
    StoredTensor,
    is_floating,
    list_tensors,
    plan_shards,
    shard_names,
    write_index,
    write_shard,
)
from tunebuild.store import Progress

Strategy = Literal["original", "dequantized"]

#: Registries limit layers; 2 GB shards pass all of them and are pushed and pulled in parallel.
SHARD_BYTES = 2 * 10**9

_CONFIGS = ("config.json", "generation_config.json")


@dataclass(slots=True)
class _Merger:
    updates: dict[str, LowRankUpdate]
    round_trip: NF4RoundTrip | None
    changes: dict[str, float] = field(default_factory=dict)

    def make(self, tensor: StoredTensor) -> torch.Tensor:
        """The merged tensor in its stored dtype."""
        weight = tensor.read()
        seen = self.round_trip.apply(tensor.name, weight) if self.round_trip else weight
        update = self.updates.get(tensor.name)
        if update is None:
            return seen.to(weight.dtype)
        if update.b.shape[0] != tensor.shape[0] or update.a.shape[1] != tensor.shape[1]:
            raise fail("adapter-shape", f"the adapter does not fit {tensor.name}")
        merged = update.add_to(seen)
        if not torch.isfinite(merged).all():
            raise fail("not-finite", f"{tensor.name} holds a value that is not a number after the merge")
        difference = torch.linalg.vector_norm(merged - seen.float())
        self.changes[tensor.name] = float(difference / torch.linalg.vector_norm(seen.float()))
        return merged.to(weight.dtype)


def merge_adapter(
    strategy: Strategy,
    *,
    base: Path,
    trained: Path,
    out: Path,
    progress: Progress,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a merged checkpoint that loads with plain transformers.

    Args:
        strategy: ``original`` adds the update to the published weights, ``dequantized`` to the weights as
            training saw them.
        base: the base model's directory.
        trained: the train stage's output.
        out: gets ``model/`` (shards, configuration) and ``merge.json``.
        progress: told the bytes done.
        shard_bytes: upper limit of a shard.

    Raises:
        TunebuildError: an adapter tensor has no place in the base, a value is not finite, or the adapter
            uses something that this merge does not have.
    """
    updates = read_adapter(trained / "adapter")
    round_trip = NF4RoundTrip.read(trained / "quantisation.json") if strategy == "dequantized" else None
    tensors = list_tensors(base)
    _check_targets(tensors, {*updates, *(round_trip.weights if round_trip else ())})
    model = out / "model"
    model.mkdir()
    merger = _Merger(updates, round_trip)
    shards = plan_shards(tensors, shard_bytes)
    names = shard_names(len(shards))
    total, done = sum(t.size for t in tensors), 0
    for shard, name in zip(shards, names, strict=True):
        write_shard(model / name, shard, merger.make)
        done += sum(t.size for t in shard)
        progress.step(done, total, name)
    write_index(model, shards, names)
    _copy_configs(base, model)
    record = {
        "strategy": strategy,
        "tensors": len(tensors),
        "updated": len(updates),
        "relative_change": dict(sorted(merger.changes.items())),
    }
    (out / "merge.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    largest = max(merger.changes.values())
    progress.say(
        f"{len(updates)} of {len(tensors)} tensors updated on the {strategy} base, "
        f"largest relative change {largest:.2%}"
    )


def _check_targets(tensors: list[StoredTensor], targets: set[str]) -> None:
    """Every weight that training touched must be one that the merge will write."""
    floating = {t.name for t in tensors if is_floating(t) and len(t.shape) == 2}
    if missing := sorted(targets - floating):
        raise fail(
            "adapter-unmatched",
            f"the base has no weight {missing[0]} ({len(missing)} of {len(targets)} are missing)",
            "the adapter belongs to another base, or the architecture renames its weights on loading",
        )


def _copy_configs(base: Path, model: Path) -> None:
    for name in _CONFIGS:
        if (source := base / name).is_file():
            shutil.copyfile(source, model / name)
    config: dict[str, Any] = json.loads((model / "config.json").read_text("utf-8"))
    if "quantization_config" in config:
        message = "the base's own weights are quantised; nothing can be added to them"
        raise fail("base-quantised", message, "use the 16-bit weights as base", path="model.base")
