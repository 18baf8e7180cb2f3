"""The ``weights`` stage: digests of the weight layers, so that weights are read once to learn them."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunebuild.image.oci.layer import layer_of_files
from tunebuild.image.plan import weight_layers
from tunebuild.store import Digest, Inputs, Progress, Tree

_RECORD = "weights.json"
_WEIGHTS = ".safetensors"


@dataclass(frozen=True, slots=True)
class WeightsStage:
    """Reads the merged weights once. Its output is a name and a digest for each layer."""

    merged: Tree
    name: str = "weights"
    version: int = 2

    def own(self) -> Inputs:
        """Nothing: layers follow from the weights."""
        return {}

    def upstream(self) -> Inputs:
        """The weights, by name."""
        return {f.path: f.digest for f in self.merged.files if f.path.endswith(_WEIGHTS)}

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Hash each layer, and find files that are not those which were measured."""
        files = [self.merged.path(f.path) for f in self.merged.files if f.path.endswith(_WEIGHTS)]
        layers = tuple(weight_layers(files))
        digests = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads run
            finished = pool.map(partial(layer_of_files, measured=digests_of(self.merged)), layers)
            for number, done in enumerate(finished, 1):
                digests[done.name] = done.digest
                progress.step(number, len(layers), done.name)
        (out / _RECORD).write_text(json.dumps(digests, indent=2) + "\n", "utf-8")
        size = sum(layer.size for layer in layers)
        progress.say(f"{len(layers)} layer{'s' if len(layers) > 1 else ''}, {size / 1e6:,.1f} MB")


def digests_of(tree: Tree) -> dict[Path, Digest]:
    """What a stage's files were when it ended, by resolved path."""
    return {tree.path(f.path).resolve(): f.digest for f in tree.files}


def weight_digests(output: Tree) -> dict[str, Digest]:
    """Digest of each weight layer by its name."""
    digests: dict[str, Digest] = json.loads(output.path(_RECORD).read_text("utf-8"))
    return digests
