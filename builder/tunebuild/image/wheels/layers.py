"""Writes the unpacked packages as layers: torch, which hardly changes, below all others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tunebuild.image.plan import SITE_PACKAGES
from tunebuild.image.tar import write_tree
from tunebuild.image.wheels.bytecode import ImagePython, compile_packages
from tunebuild.image.wheels.lock import LockedWheel, WheelLock
from tunebuild.image.wheels.unpack import unpack_wheels
from tunebuild.store import Digest, Progress

# torch and what only torch brings along.
_TORCH = ("torch", "numpy", "sympy", "mpmath", "networkx", "triton", "nvidia-", "cuda-")


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """A finished layer in a file.

    Attributes:
        name: for people.
        file: name of the uncompressed tar in the directory it was written to.
        digest, size: of that tar.
        created_by: what the image's history says.
    """

    name: str
    file: str
    digest: Digest
    size: int
    created_by: str


def write_wheel_layers(
    lock: WheelLock, wheels: Path, python: ImagePython, work: Path, out: Path, progress: Progress
) -> tuple[WrittenLayer, ...]:
    """Unpack, compile and write the packages.

    Args:
        lock: which wheels.
        wheels: the directory they are in.
        python: the image's interpreter.
        work: scratch space for the unpacked trees.
        out: where the layers' tars go.
        progress: told the bytes unpacked.
    """
    torch = [w for w in lock.wheels if w.name.startswith(_TORCH)]
    others = [w for w in lock.wheels if w not in torch]
    return (
        _write("torch", torch, wheels, python, work, out, progress),
        _write("packages", others, wheels, python, work, out, progress),
    )


def _write(
    name: str,
    group: Iterable[LockedWheel],
    wheels: Path,
    python: ImagePython,
    work: Path,
    out: Path,
    progress: Progress,
) -> WrittenLayer:
    group = tuple(group)
    tree = work / name
    unpack_wheels((wheels / w.filename for w in group), tree, progress)
    compile_packages(python, tree, SITE_PACKAGES)
    file = out / f"{name}.tar"
    with file.open("wb") as sink:
        tar = write_tree(tree, SITE_PACKAGES, sink)
    listed = ", ".join(f"{w.name} {w.version}" for w in group)
    return WrittenLayer(name, file.name, tar.digest, tar.size, f"tunebuild: {listed}")
