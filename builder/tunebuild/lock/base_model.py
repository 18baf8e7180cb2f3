"""Finds the base model's files: a directory beside the spec, or a pinned commit of a hub repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tunebuild.errors import TunebuildError, fail
from tunebuild.lock.weights_file import read_header
from tunebuild.spec.model import ModelSpec
from tunebuild.store import Digest, TreeFile

# Weights in pickles run code when they are loaded; nothing here ever opens one.
_WANTED = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model")


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
        """Rows of the embedding matrix."""
        text_config = self.config.get("text_config", self.config)
        return int(text_config["vocab_size"])

    @property
    def weight_digests(self) -> list[tuple[str, Digest]]:
        """Names and digests of what defines the model's function: weights and configuration."""
        return [(f.path, f.digest) for f in self.files if f.path.endswith((".safetensors", "config.json"))]


def find_base_model(
    model: ModelSpec, spec_dir: Path, cache: Path, digest: Callable[[Path], Digest]
) -> BaseModel:
    """Locate (and for a hub model, download once) the base model.

    Args:
        model: the spec's section.
        spec_dir: where a local directory starts.
        cache: where hub downloads are kept.
        digest: computes or remembers a file's digest.

    Raises:
        TunebuildError: not there, not reachable, without safetensors, or cut short.
    """
    directory = spec_dir / model.base if model.is_local else _download(model, cache)
    names = sorted({p.name for pattern in _WANTED for p in directory.glob(pattern) if p.is_file()})
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
    for name in names:
        if name.endswith(".safetensors"):
            read_header(directory / name)  # hours of training should not end at a shard that was cut short
    files = tuple(TreeFile(n, (directory / n).stat().st_size, digest(directory / n)) for n in names)
    return BaseModel(directory, files)


def _download(model: ModelSpec, cache: Path) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ModuleNotFoundError:
        raise fail("no-hub", "a hub model needs huggingface_hub", "pip install 'tunebuild[train]'") from None

    def bad(code: str, message: str, hint: str) -> TunebuildError:
        return fail(code, f"{model.base}: {message}", hint, path="model.base")

    try:
        return Path(
            snapshot_download(
                model.base, revision=model.revision, cache_dir=cache, allow_patterns=list(_WANTED)
            )
        )
    except GatedRepoError:
        raise bad("hub-gated", "access is gated", "accept its terms and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        hint = f"for a private one set HF_TOKEN; for a directory write ./{model.base}"
        raise bad("hub-unknown", "the hub has no such repository", hint) from None
    except RevisionNotFoundError:
        raise fail(
            "hub-revision", f"{model.base} has no commit {model.revision}", path="model.revision"
        ) from None
    except LocalEntryNotFoundError:
        hint = "check the network or HF_ENDPOINT, or use a directory"
        raise bad("hub-offline", "not in the cache, and the hub cannot be reached", hint) from None
    except (HfHubHTTPError, OSError) as error:
        raise bad("hub", str(error).splitlines()[0], "try again; files already here are kept") from None
