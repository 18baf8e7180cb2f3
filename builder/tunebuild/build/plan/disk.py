"""Estimates what a build writes to disk, and whether there is room."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from tunebuild.build.pipeline import Pipeline
from tunebuild.build.plan.report import DiskPlan
from tunebuild.spec.tuning import TuningSpec
from tunebuild.store import Tree
from tunebuild.train.plan.shapes import read_tensors, trained_parameters

_FLOAT32 = 4
# Bytes of the packages that a server needs, as layers, by engine and device: what builds were seen to write.
_LAYERS = {
    ("transformers", "cpu"): 820_000_000,
    ("transformers", "cuda"): 5_000_000_000,
    ("vllm", "cpu"): 1_700_000_000,
    ("vllm", "cuda"): 6_140_000_000,
}
_UNPACKED = 1.7  # times that, with what they are made from


def layer_bytes(pipeline: Pipeline) -> int:
    """Bytes of the layers of packages, before they have been made."""
    return _LAYERS[pipeline.engine, pipeline.spec.serving.device]


def plan_disk(
    pipeline: Pipeline,
    outputs: Mapping[str, Tree],
    archive: tuple[Path, int],
) -> DiskPlan:
    """What will be written, and whether there is room.

    Args:
        pipeline: the spec.
        outputs: of stages that are there already, by name.
        archive: what the build would write, and its size in bytes; 0 if it is there already.
    """
    full, apart = pipeline.train_settings.full, pipeline.keeps_adapter
    output = 0 if "train" in outputs else trained_bytes(pipeline)
    training = training_bytes(output, pipeline.spec.tuning)
    # Once: a build that finds the less likely merge closer writes that, too.
    weights = 0 if "merge" in outputs else weight_bytes(pipeline)
    unpacked, layers = (
        (0, 0) if "runtime" in outputs else (int(_UNPACKED * layer_bytes(pipeline)), layer_bytes(pipeline))
    )
    extended = pipeline.bases.to_write  # stays there, beside the published one
    path, size = archive
    needed = {
        "base with new tokens": extended,
        f"{'trained weights' if full else 'adapter'} and checkpoints": training,
        "weights, apart" if apart else "merged weights": weights,
        "packages, unpacked and as layers": unpacked,
        "archive": size,
    }
    # Packages are made ready beside training and merge, which finds the checkpoints gone.
    before = extended + max(training, output + weights) + unpacked
    after = extended + output + weights + layers
    root, place = pipeline.store.root, next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(root).free
    if place.stat().st_dev == root.stat().st_dev:
        lacking = max(0, max(before, after + size) - free)
    else:
        lacking = max(0, max(before, after) - free) + max(0, size - shutil.disk_usage(place).free)
    return DiskPlan(
        needed={name: count for name, count in needed.items() if count},
        most=max(before, after + size),
        free=free,
        lacking=lacking,
    )


def training_bytes(trained: int, tuning: TuningSpec) -> int:
    """The most that a training has on disk at once: checkpoints, and at its end what was trained.

    Args:
        trained: bytes of what is trained. A checkpoint has it with the optimizer's two moments.
        tuning: says when checkpoints are written, and how many are kept. One goes when the next is there.
    """
    kept = tuning.checkpoints
    if tuning.keep == "best":
        kept = max(kept, 2)  # the best one, and the last one
    often = tuning.keep == "best" or tuning.early_stopping is not None
    written = tuning.evaluations if often else math.ceil(tuning.epochs)
    return trained * (3 * (kept + 1) if written > kept else 3 * written + 1)


def trained_bytes(pipeline: Pipeline) -> int:
    """Bytes of the adapter, or of all weights where those are trained."""
    return _FLOAT32 * trained_parameters(
        read_tensors(pipeline.base.directory), pipeline.train_settings.tuning
    )


def weight_bytes(pipeline: Pipeline) -> int:
    """Bytes of the base's weights."""
    return sum(file.size for file in pipeline.base.files if file.path.endswith(".safetensors"))
