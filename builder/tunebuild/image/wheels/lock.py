"""Resolves what the server needs to wheels for the image's Python, and fetches them.

pip does it, because pip knows this machine's indexes, mirrors and local wheel directories, and because no
wheel may be missing from them that the machine itself was installed with.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import requires
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from tunebuild.errors import fail
from tunebuild.store import Digest, digest_file

# pip takes platform tags literally, so every level that an older wheel may name must be listed.
_GLIBC_LEVELS = (36, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)
_OLD_NAMES = ("manylinux2014", "manylinux2010", "manylinux1", "linux")


@dataclass(frozen=True, slots=True)
class LockedWheel:
    """A wheel pinned by content. ``size`` in bytes."""

    name: str
    version: str
    filename: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class WheelLock:
    """All wheels of an image, in order of name."""

    python: str
    wheels: tuple[LockedWheel, ...]

    def to_json(self) -> dict[str, Any]:
        """For a lock file."""
        return asdict(self)


def serving_requirements(*, adapter: bool = False) -> tuple[str, ...]:
    """What the ``serve`` extra of this installation asks for; with ``adapter``, ``serve-adapter``, too.

    Raises:
        TunebuildError: the installation is older than this code, and knows no such extra.
    """
    extras = ("serve", "serve-adapter") if adapter else ("serve",)
    return tuple(sorted(text for extra in extras for text in _extra(extra)))


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
    python: str,
    machine: str,
    target: Path,
    pins: Mapping[str, tuple[str, str]] | None = None,
) -> WheelLock:
    """Resolve and download wheels into ``target``.

    Args:
        requirements: requirement strings.
        constraints: a pip constraints file that pins versions.
        python: the image's Python, e.g. ``3.11``.
        machine: e.g. ``x86_64``.
        target: directory; only the wheels of this resolution are left in it.
        pins: version and SHA-256 of wheels that may not move, by name.

    Raises:
        TunebuildError: pip is not installed, a package has no wheel for the image, no index answers, or
            what is pinned is not what an index has.
    """
    target.mkdir(parents=True, exist_ok=True)
    for stale in target.iterdir():
        stale.unlink()
    with TemporaryDirectory(prefix="tunebuild-") as scratch:
        bounds = Path(scratch) / "constraints.txt"
        bounds.write_text(_constraints(constraints, pins or {}), "utf-8")
        _download([*requirements, "--constraint", str(bounds)], python, machine, target)
    lock = WheelLock(python, tuple(_locked(path) for path in sorted(target.iterdir())))
    for wheel in lock.wheels:
        if pins and wheel.name in pins and pins[wheel.name][1] != wheel.digest.removeprefix("sha256:"):
            raise fail(
                "wheel-changed",
                f"{wheel.filename} is not the file that the lock names",
                "an index serves another build of that version: find out why, or let it move with "
                f"'tunebuild lock --update {wheel.name}'",
                path="image",
            )
    return lock


def _constraints(shipped: Path, pins: Mapping[str, tuple[str, str]]) -> str:
    """Pinned versions win over the shipped ones."""
    kept = [
        line
        for line in shipped.read_text("utf-8").splitlines()
        if line and not line.startswith("#") and canonicalize_name(Requirement(line).name) not in pins
    ]
    return "\n".join([*kept, *(f"{name}=={version}" for name, (version, _) in pins.items())]) + "\n"


def _download(arguments: Sequence[str], python: str, machine: str, target: Path) -> None:
    tag = "cp" + python.replace(".", "")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    argv += ["--timeout", "30"]  # a connection that stalls is tried again, not waited for
    argv += ["--dest", str(target), "--only-binary", ":all:"]
    argv += ["--python-version", python, "--implementation", "cp"]
    for abi in (tag, "abi3", "none"):
        argv += ["--abi", abi]
    for platform in _platforms(machine):
        argv += ["--platform", platform]
    done = subprocess.run([*argv, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line]
        reason = (errors or ["no reason given"])[0].removeprefix("ERROR: ")
        raise fail(
            "wheels",
            f"pip cannot get the image's wheels: {reason}",
            "is pip installed here, and does its index answer? 'pip download torch' shows more",
            path="image",
        )


def _platforms(machine: str) -> list[str]:
    return [f"manylinux_2_{n}_{machine}" for n in _GLIBC_LEVELS] + [f"{n}_{machine}" for n in _OLD_NAMES]


def _locked(path: Path) -> LockedWheel:
    name, version, _, _ = parse_wheel_filename(path.name)
    return LockedWheel(name, str(version), path.name, digest_file(path), path.stat().st_size)
