"""Merges an adapter into a checkpoint, tensor by tensor: the model is never whole in memory."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from tunebuild.errors import fail
from tunebuild.merge.adapter_file import Adapter, read_adapter
from tunebuild.merge.nf4 import NF4RoundTrip
from tunebuild.merge.safetensors_io import (
    StoredTensor,
    copy_shard,
    is_floating,
    list_tensors,
    plan_shards,
    write_index,
    write_shard,
)
from tunebuild.merge.ties import respect_ties
from tunebuild.store import Progress

Strategy = Literal["original", "dequantized"]

#: Registries limit layers; 2 GB shards pass all of them and are pushed and pulled in parallel.
SHARD_BYTES = 2 * 10**9

_CONFIGS = ("config.json", "generation_config.json")

# Shards by what is in them. Names hold no total, so that what adapters of one base share has one name, too;
# in their order the image's layers begin with what is shared.
_AS_STORED, _ROUND_TRIPPED, _MERGED = "model-base", "model-dequantized", "model-merged"
_KINDS = (_AS_STORED, _ROUND_TRIPPED, _MERGED)

_MEMORY = 700_000_000  # bytes that shards merged at the same time may take together
_BYTES_PER_VALUE = 12  # of a tensor while it is merged: as read, in 32 bits, as written, and blocks
_ROWS = 1024  # looked at together where a whole tensor in 32 bits would be one more


@dataclass(slots=True)
class _Merger:
    adapter: Adapter
    round_trip: NF4RoundTrip | None
    changes: dict[str, float] = field(default_factory=dict)

    def kind(self, tensor: StoredTensor) -> str:
        """Which shards it belongs to."""
        if tensor.name in self.adapter.updates or tensor.name in self.adapter.replacements:
            return _MERGED
        return _ROUND_TRIPPED if self.round_trip and tensor.name in self.round_trip.weights else _AS_STORED

    def make(self, tensor: StoredTensor) -> torch.Tensor:
        """The merged tensor in its stored dtype."""
        weight = tensor.read()
        replacement = self.adapter.replacements.get(tensor.name)
        if replacement is not None:
            if tuple(replacement.shape) != tensor.shape:
                raise fail("adapter-shape", f"the adapter does not fit {tensor.name}")
            return self._checked(tensor, replacement, weight)
        seen = self.round_trip.apply(tensor.name, weight) if self.round_trip else weight
        update = self.adapter.updates.get(tensor.name)
        if update is None:
            return seen.to(weight.dtype)
        if not update.fits(tensor.shape):
            raise fail("adapter-shape", f"the adapter does not fit {tensor.name}")
        return self._checked(tensor, update.add_to(seen), seen, weight.dtype)

    def _checked(
        self, tensor: StoredTensor, new: torch.Tensor, old: torch.Tensor, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        written = new.to(dtype or old.dtype)
        if not torch.isfinite(written).all():  # here, as the step to 16 bits is where large values are lost
            raise fail(
                "not-finite",
                f"{tensor.name} holds a value that is not a number after the merge, or too large for "
                f"{tensor.dtype}",
            )
        self.changes[tensor.name] = _relative_change(new, old)
        return written


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

    What the adapter does not touch goes to shards of its own, byte for byte and in the base's order: all
    adapters that train the same modules of a base share them.

    Args:
        strategy: ``original`` adds the update to the published weights, ``dequantized`` to the weights as
            training saw them.
        base: the base model's directory.
        trained: the train stage's output.
        out: gets ``model/`` (shards, index, configuration) and ``merge.json``.
        progress: told the bytes done.
        shard_bytes: upper limit of a shard.

    Raises:
        TunebuildError: an adapter tensor has no place in the base, a value is not finite, or the adapter
            uses something that this merge does not have.
    """
    round_trip = NF4RoundTrip.read(trained / "quantisation.json") if strategy == "dequantized" else None
    tensors = list_tensors(base)
    adapter = respect_ties(read_adapter(trained / "adapter"), base, frozenset(t.name for t in tensors))
    _check_targets(tensors, {*adapter.updates, *(round_trip.weights if round_trip else ())}, matrices=True)
    _check_targets(tensors, set(adapter.replacements), matrices=False)
    merger = _Merger(adapter, round_trip)
    model = out / "model"
    model.mkdir()
    shards = {
        f"{kind}-{number:05d}.safetensors": shard
        for kind in _KINDS
        for number, shard in enumerate(
            plan_shards([t for t in tensors if merger.kind(t) == kind], shard_bytes), 1
        )
    }

    def write(name: str) -> None:
        if name.startswith(_AS_STORED):
            copy_shard(model / name, shards[name])
        else:
            write_shard(model / name, shards[name], merger.make)

    total, done = sum(t.size for t in tensors), 0
    with ThreadPoolExecutor(_workers([t for t in tensors if merger.kind(t) != _AS_STORED])) as pool:
        for name, _ in zip(shards, pool.map(write, shards), strict=True):
            done += sum(t.size for t in shards[name])
            progress.step(done, total, name)
    write_index(model, shards)
    _copy_configs(base, model)
    record = {
        "strategy": strategy,
        "tensors": len(tensors),
        "updated": len(merger.changes),
        "relative_change": dict(sorted(merger.changes.items())),
    }
    (out / "merge.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    largest = max(merger.changes.values())
    progress.say(
        f"{len(merger.changes)} of {len(tensors)} tensors updated on the {strategy} base, "
        f"largest relative change {largest:.2%}"
    )


def _check_targets(tensors: Sequence[StoredTensor], targets: set[str], *, matrices: bool) -> None:
    """Every weight that training touched must be one that the merge will write."""
    fit = {t.name for t in tensors if is_floating(t) and (len(t.shape) == 2 or not matrices)}
    if missing := sorted(targets - fit):
        raise fail(
            "adapter-unmatched",
            f"the base has no weight {missing[0]} ({len(missing)} of {len(targets)} are missing)",
            "the adapter belongs to another base, or the architecture renames its weights on loading",
        )


def _workers(changed: Sequence[StoredTensor]) -> int:
    """How many shards to write at the same time: one a core, as long as their largest tensors fit."""
    largest = max((math.prod(t.shape) for t in changed), default=0)
    return max(1, min(len(os.sched_getaffinity(0)), _MEMORY // max(1, _BYTES_PER_VALUE * largest)))


def _relative_change(new: torch.Tensor, old: torch.Tensor) -> float:
    """Size of the difference as a share of the old size; 1 where all was zero."""
    moved = size = 0.0
    for after, before in zip(new.split(_ROWS), old.split(_ROWS), strict=True):
        moved += float((after.float() - before.float()).square().sum(dtype=torch.float64))
        size += float(before.float().square().sum(dtype=torch.float64))
    return math.sqrt(moved / size) if size else float(moved > 0)


def _copy_configs(base: Path, model: Path) -> None:
    for name in _CONFIGS:
        if (source := base / name).is_file():
            shutil.copyfile(source, model / name)
    config: dict[str, Any] = json.loads((model / "config.json").read_text("utf-8"))
    if "quantization_config" in config:
        message = "the base's own weights are quantised; nothing can be added to them"
        raise fail("base-quantised", message, "use the 16-bit weights as base", path="model.base")
