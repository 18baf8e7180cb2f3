"""A spec's base model: as it is published, or with the spec's new control tokens."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from tunebuild.lock.spec_lock import SpecLock
from tunebuild.models.base_model import BaseModel, find_base_model
from tunebuild.models.new_tokens import NewTokensStage, with_new_tokens
from tunebuild.spec import LoadedSpec
from tunebuild.store import Store, Tree


class SpecBase:
    """Finds the base model. With new control tokens it is another model, which a stage writes.

    Until that has run, its tokenizer, its configuration and the shapes and sizes of its weights are known:
    all that a plan and the checks before a training ask for.

    Args:
        loaded: the spec.
        store: where the stage's output is.
        cache: where hub downloads are kept.
        lock: decides what is fetched.
    """

    def __init__(self, loaded: LoadedSpec, store: Store, cache: Path, lock: SpecLock | None) -> None:
        self._loaded = loaded
        self._store = store
        self._cache = cache
        self._lock = lock
        self._written: Tree | None = None

    @cached_property
    def published(self) -> BaseModel:
        """The files as they are published."""
        return find_base_model(
            self._loaded.spec.model,
            self._loaded.directory,
            self._cache,
            self._store.memo.digest,
            self._lock.model if self._lock else None,
        )

    @cached_property
    def stage(self) -> NewTokensStage | None:
        """What adds the new tokens, if the spec has some."""
        tokens = self._loaded.spec.prompt.new_tokens
        return NewTokensStage(self.published, tokens) if tokens else None

    @property
    def files(self) -> BaseModel:
        """The base that is trained; an outline of it without numbers where it is not written yet."""
        if self.stage is None:
            return self.published
        if self._written is None:
            self._written = self._store.find(self.stage)
        return with_new_tokens(self._written) if self._written else self._outlined[1]

    @property
    def to_write(self) -> int:
        """Bytes of weights that the stage has still to write."""
        if self.stage is None or self._written or self._store.find(self.stage):
            return 0
        return sum(file.size for file in self.files.files if file.path.endswith(".safetensors"))

    @cached_property
    def _outlined(self) -> tuple[TemporaryDirectory[str], BaseModel]:
        assert self.stage
        directory = TemporaryDirectory(prefix="tunebuild-")  # goes with this object
        return directory, self.stage.outline(Path(directory.name))
