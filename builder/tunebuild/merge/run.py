"""Merges an adapter into a checkpoint, tensor by tensor: the model is never whole in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.merge.adapter_file import Adapter, read_adapter, read_model
from tunebuild.merge.names import under_stored_names
from tunebuild.merge.nf4 import NF4RoundTrip
from tunebuild.merge.safetensors_io import (
    StoredTensor,
    is_floating,
    list_tensors,
    make_shard,
    plan_shards,
    write_index,
)
from tunebuild.merge.strategies import Strategy
from tunebuild.merge.tensors import KINDS, TensorMerger
from tunebuild.merge.ties import respect_ties
from tunebuild.merge.workers import one_thread_each, workers
from tunebuild.store import Progress

#: Registries limit layers; 2 GB shards pass all of them and are pushed and pulled in parallel.
SHARD_BYTES = 2 * 10**9

_CONFIGS = ("config.json", "generation_config.json")


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
            training saw them, and ``trained`` writes weights that were all trained themselves.
        base: the base model's directory.
        trained: the train stage's output.
        out: gets ``model/`` (shards, index, configuration) and ``merge.json``.
        progress: told the bytes done.
        shard_bytes: upper limit of a shard.

    Raises:
        TunebuildError: an adapter tensor has no place in the base, a value is not finite, or the adapter
            uses something that this merge does not have.
    """
    round_trip = NF4RoundTrip.read(trained / "quantization.json") if strategy == "dequantized" else None
    tensors = list_tensors(base)
    whole = strategy == "trained"
    adapter = read_model(trained / "model") if whole else read_adapter(trained / "adapter", base)
    adapter = respect_ties(adapter, base, frozenset(t.name for t in tensors), whole=whole)
    adapter, round_trip = under_stored_names(adapter, round_trip, base, tensors)
    matrices = {*adapter.updates, *adapter.rows, *(round_trip.weights if round_trip else ())}
    _check_targets(tensors, matrices, matrices=True)
    _check_targets(tensors, set(adapter.replacements), matrices=False)
    changes = _write_model(TensorMerger(adapter, round_trip), tensors, base, out, progress, shard_bytes)
    _write_record(strategy, tensors, changes, out)
    largest = max(changes.values())
    if not largest:
        hint = "raise tuning.learning_rate or tuning.epochs"
        raise fail("nothing-trained", "training changed no weight", hint, path="tuning")
    on = "" if whole else f" on the {strategy} base"
    progress.say(
        f"{len(changes)} of {len(tensors)} tensors updated{on}, largest relative change {largest:.2%}"
    )


def copy_base(*, base: Path, out: Path, progress: Progress, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the base's tensors as they are, for an adapter that is served beside them.

    Takes and leaves what :func:`merge_adapter` does. Nothing in it depends on an adapter.
    """
    tensors = list_tensors(base)
    changes = _write_model(TensorMerger(Adapter({}, {}), None), tensors, base, out, progress, shard_bytes)
    _write_record("none", tensors, changes, out)
    progress.say(f"{len(tensors)} tensors as published; the adapter stays beside them")


def _write_model(
    merger: TensorMerger,
    tensors: Sequence[StoredTensor],
    base: Path,
    out: Path,
    progress: Progress,
    shard_bytes: int,
) -> dict[str, float]:
    """Write ``model/``; how far the adapter moved each tensor that it touches."""
    model = out / "model"
    model.mkdir()
    shards = {
        f"{kind}-{number:05d}.safetensors": shard
        for kind in KINDS
        for number, shard in enumerate(
            plan_shards([t for t in tensors if merger.kind(t) == kind], shard_bytes), 1
        )
    }
    jobs = [
        job
        for name in shards
        for job in zip(shards[name], make_shard(model / name, shards[name]), strict=True)
    ]
    changes: dict[str, float] = {}
    total, done = sum(t.size for t in tensors), 0
    with one_thread_each(workers()) as pool:
        for (tensor, place), change in zip(jobs, pool.map(lambda job: merger.write(*job), jobs), strict=True):
            done += tensor.size
            progress.step(done, total, place.file.name)
            if change is not None:
                changes[tensor.name] = change
    write_index(model, shards)
    _copy_configs(base, model)
    return changes


def _write_record(
    strategy: Strategy, tensors: Sequence[StoredTensor], changes: dict[str, float], out: Path
) -> None:
    record = {
        "strategy": strategy,
        "tensors": len(tensors),
        "updated": len(changes),
        "relative_change": dict(sorted(changes.items())),
    }
    (out / "merge.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def _check_targets(tensors: Sequence[StoredTensor], targets: set[str], *, matrices: bool) -> None:
    """Every weight that training touched must be one that the merge will write."""
    fit = {t.name for t in tensors if is_floating(t) and (len(t.shape) == 2 or not matrices)}
    if missing := sorted(targets - fit):
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
        message = "the base's own weights are quantized; nothing can be added to them"
        raise fail("base-quantized", message, "use the 16-bit weights as base", path="model.base")
