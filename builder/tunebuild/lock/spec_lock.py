"""``spec.lock``: everything that a spec names, pinned by content. Made to be reviewed: one thing a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunebuild.errors import fail
from tunebuild.store import Digest
from tunebuild.store.atomic import write_atomically

#: Name of a package or wheel -> ``VERSION sha256:DIGEST``.
Pins = dict[str, str]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class RepositoryLock(_Part):
    """A hub repository at a commit; or, without revision and commit, a directory."""

    base: str
    revision: str | None = None
    commit: str | None = None
    files: dict[str, Digest]


class RuntimeLock(_Part):
    """What the image stands on: Debian packages and Python wheels."""

    platform: str
    device: Literal["cpu", "cuda"] = "cpu"
    suite: str
    python: str
    requirements: tuple[str, ...]
    packages: Pins
    wheels: Pins


class SpecLock(_Part):
    """A whole lock file."""

    lock_version: Literal[1] = Field(default=1, alias="lockVersion")
    tunebuild: str
    template: dict[str, Digest]
    files: dict[str, Digest]
    model: RepositoryLock
    datasets: dict[str, RepositoryLock]
    runtime: RuntimeLock


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is not what the lock says; ``old`` or ``new`` is empty where one side has nothing."""

    name: str
    old: str
    new: str

    def __str__(self) -> str:
        if not self.old:
            return f"+ {self.name} {_short(self.new)}"
        if not self.new:
            return f"- {self.name} {_short(self.old)}"
        return f"~ {self.name} {_short(self.old)} -> {_short(self.new)}"


def lock_path(spec: Path) -> Path:
    """Where the lock of a spec is: ``spec.lock`` beside ``spec.yaml``."""
    return spec.with_suffix(".lock")


def read_lock(path: Path) -> SpecLock | None:
    """The lock, or ``None`` if there is none.

    Raises:
        TunebuildError: ``lock-damaged``: it cannot be read, or another version of tunebuild wrote it.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise fail(
            "lock-damaged", f"cannot read {path}: {error}", "take it back from version control"
        ) from None
    try:
        return SpecLock.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = f"{path} is not a lock: {f'{place}: ' if place else ''}{first['msg']}"
        hint = "a merge conflict? take one side, or remove the file, and run 'tunebuild lock'"
        raise fail("lock-damaged", message, hint) from None


def write_lock(lock: SpecLock, path: Path) -> None:
    """Write it, or leave the old one whole."""
    text = json.dumps(_ordered(lock.model_dump(mode="json", by_alias=True)), indent=2, ensure_ascii=False)
    write_atomically(path, text + "\n")


def drift(old: SpecLock | None, new: SpecLock) -> tuple[Drift, ...]:
    """What differs, in order of name."""
    before = dict(_leaves(old.model_dump(mode="json", by_alias=True), "")) if old else {}
    after = dict(_leaves(new.model_dump(mode="json", by_alias=True), ""))
    names = sorted({*before, *after})
    pairs = ((name, before.get(name, ""), after.get(name, "")) for name in names)
    return tuple(Drift(name, a, b) for name, a, b in pairs if a != b)


def split_pin(pin: str) -> tuple[str, str]:
    """Version and bare SHA-256 of a pin."""
    version, _, digest = pin.partition(" sha256:")
    return version, digest


def _ordered(value: Any) -> Any:
    """Sections in the order of the models, the things in them by name."""
    named = ("template", "files", "datasets", "packages", "wheels")
    if not isinstance(value, Mapping):
        return value
    return {
        key: _ordered(dict(sorted(inner.items())) if key in named else inner) for key, inner in value.items()
    }


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield f"{path} {inner}", "required"
    elif value is not None:
        yield path, str(value)


def _short(text: str) -> str:
    version, mark, digest = text.partition("sha256:")
    return f"{version}{digest[:12]}" if mark else text
