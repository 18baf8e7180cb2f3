"""The ``runtime`` stage: what every image of ours stands on, the operating system and Python packages.

It depends on no model and no data, so it is built once for a machine's mirrors and constraints, and all
images share its layers.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tunebuild.image.architecture import architecture_of, this_machine
from tunebuild.image.debian.sources import Repository, read_sources
from tunebuild.image.oci.layer import Entry, FilesLayer, Layer, layer_of_blob, layer_of_files, read_segments
from tunebuild.image.wheels.bytecode import ImagePython
from tunebuild.image.wheels.layers import WrittenLayer, write_wheel_layers
from tunebuild.image.wheels.lock import constraints_file, fetch_wheels, serving_requirements
from tunebuild.image.wheels.resolve import Target
from tunebuild.lock.spec_lock import Pins, RuntimeLock, split_pin
from tunebuild.store import Digest, Inputs, Progress, Tree, digest_file

_RECORD = "runtime.json"

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class WantedRuntime:
    """What an image's base and packages must be.

    Attributes:
        platform: e.g. ``linux/amd64``.
        device: where the model runs.
        requirements: Python packages.
        constraints: a file of their versions.
    """

    platform: str
    device: Device
    requirements: tuple[str, ...]
    constraints: Path

    @classmethod
    def of(cls, platform: str, device: Device, engine: str, *, adapter: bool) -> WantedRuntime:
        """What an engine needs on a device, with an adapter beside the base or without."""
        requirements = serving_requirements(adapter=adapter, engine=engine, device=device)
        return cls(platform, device, requirements, constraints_file(engine, device))


@dataclass(frozen=True, slots=True)
class RuntimeStage:
    """Builds the base and package layers.

    Output: ``base.tar``, ``torch.tar``, ``packages.tar``, ``peft.tar`` or ``vllm.tar`` if that is asked for,
    and ``runtime.json`` with every package's version and digest.
    """

    platform: str
    device: Device
    requirements: tuple[str, ...]
    constraints: Path
    repositories: tuple[Repository, ...]
    cache: Path
    locked: RuntimeLock | None = None
    free: frozenset[str] = frozenset()
    asked: str = ""
    name: str = "runtime"
    version: int = 3

    @classmethod
    def of(
        cls,
        wanted: WantedRuntime,
        cache: Path,
        locked: RuntimeLock | None = None,
        *,
        free: frozenset[str] = frozenset(),
        asked: str = "",
    ) -> RuntimeStage:
        """The stage for a spec.

        Args:
            wanted: what the image needs.
            cache: where downloads are kept.
            locked: what may not move.
            free: names of packages and wheels that may move all the same.
            asked: when mirrors were last asked for those; another time is another stage.

        Raises:
            TunebuildError: this machine has no apt mirror set up.
        """
        return cls(
            wanted.platform,
            wanted.device,
            wanted.requirements,
            wanted.constraints,
            tuple(read_sources()),
            cache,
            locked,
            free,
            asked,
        )

    def own(self) -> Inputs:
        """What is asked for. What was chosen is in the output, and stays until something here changes."""
        asked: dict[str, Any] = {
            "platform": self.platform,
            "device": self.device,
            "requirements": list(self.requirements),
        }
        if self.locked and not self.free:
            # Constraints and suites no longer have a say.
            return {**asked, "packages": self.locked.packages, "wheels": self.locked.wheels}
        asked["constraints"] = digest_file(self.constraints)
        asked["suites"] = sorted({r.suite for r in self.repositories})
        if self.locked:
            asked["free"], asked["asked"] = sorted(self.free), self.asked
        return asked

    def upstream(self) -> Inputs:
        """Nothing: it depends on no other stage."""
        return {}

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Fetch, unpack, compile and write."""
        from tunebuild.image.debian.download import Downloads
        from tunebuild.image.debian.layer import base_entries
        from tunebuild.image.debian.resolve import resolve_apt
        from tunebuild.image.debian.settings import read_settings

        downloads = Downloads(self.cache / "apt", read_settings())
        architecture, here = architecture_of(self.platform), this_machine()
        lock = resolve_apt(
            self.repositories, downloads, architecture.name, self._pins("packages"), self.device == "cuda"
        )
        base = _write_base(base_entries(lock, downloads, progress), out)
        running, programs = lock, base
        if here != architecture:
            # The image's Python does not run here; this machine's of the same release writes the same bytes.
            running = resolve_apt(self.repositories, downloads, here.name)
            programs = _write_base(base_entries(running, downloads, progress), work)
        unpacked = work / "base"
        shutil.rmtree(unpacked, ignore_errors=True)
        with tarfile.open((out if here == architecture else work) / programs.file) as tar:
            tar.extractall(unpacked, filter="fully_trusted")  # noqa: S202 - our own tar, links out of it included
        target = Target(lock.python, architecture.machine, self.device)
        wheels = fetch_wheels(
            self.requirements,
            self.constraints,
            target,
            work / "wheels",
            self._pins("wheels"),
            progress,
        )
        for stale in ("torch", "packages", "peft", "vllm"):
            shutil.rmtree(work / stale, ignore_errors=True)
        python = ImagePython(unpacked, running.python, here)
        layers = (base, *write_wheel_layers(wheels, work / "wheels", python, work, out, progress))
        record = {
            "layers": [asdict(layer) for layer in layers],
            "apt": lock.to_json(),
            "wheels": wheels.to_json(),
        }
        (out / _RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        sizes = ", ".join(f"{layer.name} {layer.size / 1e6:.0f} MB" for layer in layers)
        progress.say(f"{len(lock.packages)} Debian packages, {len(wheels.wheels)} wheels: {sizes}")

    def _pins(self, kind: Literal["packages", "wheels"]) -> dict[str, tuple[str, str]]:
        pins: Pins = getattr(self.locked, kind) if self.locked else {}
        return {name: split_pin(pin) for name, pin in pins.items() if name not in self.free}


def locked_runtime(output: Tree, wanted: WantedRuntime) -> RuntimeLock:
    """Pins everything that a finished runtime was made of."""
    record = json.loads(output.path(_RECORD).read_text("utf-8"))
    apt, wheels = record["apt"], record["wheels"]["wheels"]
    return RuntimeLock(
        platform=wanted.platform,
        device=wanted.device,
        suite=apt["suite"],
        python=apt["python"],
        requirements=wanted.requirements,
        packages={p["name"]: f"{p['version']} sha256:{p['sha256']}" for p in apt["packages"]},
        wheels={w["name"]: f"{w['version']} {w['digest']}" for w in wheels},
    )


def runtime_cuda(output: Tree) -> str:
    """The CUDA version of a finished runtime; empty for a CPU build."""
    cuda: str = json.loads(output.path(_RECORD).read_text("utf-8"))["wheels"]["cuda"]
    return cuda


def runtime_layers(output: Tree) -> tuple[Layer, ...]:
    """The finished layers of a runtime, bottom first."""
    record = json.loads(output.path(_RECORD).read_text("utf-8"))
    return tuple(
        layer_of_blob(
            output.path(row["file"]),
            Digest(row["digest"]),
            row["size"],
            name=row["name"],
            created_by=row["created_by"],
        )
        for row in record["layers"]
    )


def _write_base(entries: list[Entry], out: Path) -> WrittenLayer:
    layer = layer_of_files(FilesLayer("base", "tunebuild: minimal Debian with Python", tuple(entries)))
    with (out / "base.tar").open("wb") as sink:
        for block in read_segments(layer.segments):
            sink.write(block)
    return WrittenLayer(layer.name, "base.tar", layer.digest, layer.size, layer.created_by)
