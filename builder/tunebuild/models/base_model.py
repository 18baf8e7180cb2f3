"""Finds the base model's files: a directory beside the spec, or a pinned commit of a hub repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tunebuild.errors import TunebuildError, fail
from tunebuild.lock.spec_lock import RepositoryLock
from tunebuild.models.positions import positions_of
from tunebuild.models.safetensors_header import read_header
from tunebuild.sources.hub import MODEL_FILES, HubRepository, is_second_copy
from tunebuild.sources.oci import OciModel
from tunebuild.sources.repository import Wanted
from tunebuild.spec.model import ModelSpec
from tunebuild.store import Digest, TreeFile

# What stands in a file's place where a repository was cloned without Git LFS.
_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024  # bytes, by its specification
# Read in many places, each of which takes them for objects; tokenizer.json is read in one, which says so.
_INDEX = "model.safetensors.index.json"
_OBJECTS = (
    "config.json",
    "generation_config.json",
    _INDEX,
    "special_tokens_map.json",
    "tokenizer_config.json",
)


@dataclass(frozen=True)
class BaseModel:
    """A base model on disk.

    Attributes:
        directory: holds ``config.json``, safetensors and the tokenizer.
        files: every file that the build may read, with its digest.
    """

    directory: Path
    files: tuple[TreeFile, ...]

    @cached_property
    def config(self) -> dict[str, Any]:
        """``config.json``."""
        config: dict[str, Any] = json.loads((self.directory / "config.json").read_text("utf-8"))
        return config

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding matrix.

        Raises:
            TunebuildError: ``config.json`` does not say.
        """
        text = self.config.get("text_config") or self.config
        size = text.get("vocab_size") if isinstance(text, dict) else None
        if not isinstance(size, int):
            raise _damaged(self.directory / "config.json", "names no vocab_size")
        return size

    @property
    def positions(self) -> int | None:
        """Tokens that it has positions for, as :func:`tunebuild.models.positions.positions_of` says."""
        return positions_of(self.config)

    @property
    def weight_digests(self) -> list[tuple[str, Digest]]:
        """Names and digests of what defines the model's function: weights and configuration."""
        return [(f.path, f.digest) for f in self.files if f.path.endswith((".safetensors", "config.json"))]


def find_base_model(
    model: ModelSpec,
    spec_dir: Path,
    cache: Path,
    digest: Callable[[Path], Digest],
    locked: RepositoryLock | None = None,
) -> BaseModel:
    """Locate (and for a hub model, download once) the base model.

    Args:
        model: the spec's section.
        spec_dir: where a local directory starts.
        cache: where hub downloads are kept.
        digest: computes or remembers a file's digest.
        locked: what the lock says of it: the commit of a hub model, and digests that files must have.

    Raises:
        TunebuildError: not there, not reachable, not pinned, without safetensors, cut short, not readable,
            or not what the lock names.
    """
    directory = spec_dir / model.base if model.is_local else _wanted(model).fetch(locked, cache, digest)
    names = wanted_files(directory)
    if not any(name.endswith(".safetensors") for name in names):
        pickles = any(directory.glob("*.bin")) or any(directory.glob("*.pt"))
        raise fail(
            "no-safetensors",
            f"'{model.base}' has no .safetensors file",
            "its weights are pickles, which can run code: convert them once with save_pretrained"
            if pickles
            else "is it a whole model directory?",
            path="model.base",
        )
    _check_readable(directory, names)
    for name in names:
        if name.endswith(".safetensors"):
            read_header(directory / name)  # hours of training should not end at a shard that was cut short
    files = tuple(TreeFile(n, (directory / n).stat().st_size, digest(directory / n)) for n in names)
    return BaseModel(directory, files)


def locked_model(
    model: ModelSpec,
    spec_dir: Path,
    cache: Path,
    digest: Callable[[Path], Digest],
    locked: RepositoryLock | None,
) -> RepositoryLock:
    """What a lock says of the base model. Downloads no weights.

    Args:
        locked: the present lock; its commit stays if the spec still means the same repository and revision.

    Raises:
        TunebuildError: as :func:`find_base_model`.
    """
    if model.is_local:
        directory = spec_dir / model.base
        files = {name: digest(directory / name) for name in wanted_files(directory)}
        return RepositoryLock(base=model.base, files=files)
    return _wanted(model).lock(locked, cache)


def wanted_files(directory: Path) -> list[str]:
    """Names of the files in a model directory that a build may read, in order."""
    found = {p.name for pattern in MODEL_FILES for p in directory.glob(pattern) if p.is_file()}
    return sorted(name for name in found if not is_second_copy(name, found))


def _check_readable(directory: Path, names: list[str]) -> None:
    """Refuse files that whoever reads them later would stumble over."""
    for name in names:
        file = directory / name
        if file.stat().st_size <= _LARGEST_POINTER and file.read_bytes().startswith(_POINTER):
            message = f"{name} is a Git LFS pointer, not the file itself"
            raise fail("lfs-pointer", message, f"run 'git lfs pull' in {directory}", path="model.base")
    if "config.json" not in names:
        raise fail("no-model", f"{directory} holds no config.json", "is it a whole model?", path="model.base")
    for name in _OBJECTS:
        if name not in names:
            continue
        try:
            found = json.loads((directory / name).read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise _damaged(directory / name, f"is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise _damaged(directory / name, "is not a JSON object")
        if name == _INDEX and "model.safetensors" not in names:
            _check_index(directory / name, found.get("weight_map"))


def _check_index(index: Path, places: Any) -> None:
    """Refuse an index by which not all shards are there, or that leads out of the directory."""
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise _damaged(index, "has no weight_map of tensors and files")
    for file in sorted(set(places.values())):
        if "/" in file or not (index.parent / file).is_file():
            raise _damaged(index, f"names {file!r}, which is not in the directory")


def _damaged(file: Path, problem: str) -> TunebuildError:
    return fail("bad-model", f"{file} {problem}", "fetch or save the model again", path="model.base")


def _wanted(model: ModelSpec) -> Wanted | OciModel:
    if model.is_oci:
        return OciModel(model.base)
    return Wanted(HubRepository("model", model.base, "model.base"), model.revision, model.token, MODEL_FILES)
