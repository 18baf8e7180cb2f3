"""What a lock says of one spec: its fields, and everything that it names, pinned by content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tunebuild.lock.record import SpecRecord, field_changes
from tunebuild.store import Digest

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
    """A spec's part of a lock. Paths start at the spec's directory.

    Attributes:
        tunebuild: the version that made it.
        spec: the effective spec; ``None`` in a lock of the first format, which did not record it.
        template: a shipped template's name, or a file's path that starts with ``./`` or ``../``.
        files: the author's files of rows.
        model: the base model.
        datasets: repositories of rows, under the names that the spec's sources give them.
        runtime: what the image stands on.
    """

    tunebuild: str
    spec: SpecRecord | None = None
    template: dict[str, Digest]
    files: dict[str, Digest]
    model: RepositoryLock
    datasets: dict[str, RepositoryLock]
    runtime: RuntimeLock


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is not what the lock says; ``old`` or ``new`` is empty where one side has nothing.

    Attributes:
        name: what it is, such as ``files.faq.jsonl`` or ``tuning.epochs``.
        old: in the lock.
        new: now.
        is_field: whether it is a field of the spec, whose values are shown as the spec would write them.
    """

    name: str
    old: str
    new: str
    is_field: bool = False

    def __str__(self) -> str:
        if self.is_field:
            return self._of_field()
        if not self.old:
            return f"+ {self.name} {_short(self.new)}"
        if not self.new:
            return f"- {self.name} {_short(self.old)}"
        return f"~ {self.name} {_short(self.old)} -> {_short(self.new)}"

    def _of_field(self) -> str:
        if not self.old:
            return f"{self.name}: {self.new}; the lock was made without it"
        if not self.new:
            return f"{self.name}: no longer set; the lock was made with {self.old}"
        return f"{self.name}: {self.old} -> {self.new}; the lock was made with {self.old}"


def drift(old: SpecLock, new: SpecLock) -> tuple[Drift, ...]:
    """What differs: first the spec's fields, then what they name; each in order of name."""
    fields: tuple[Drift, ...] = ()
    if new.spec:
        recorded = old.spec or SpecRecord(digest=Digest(""), fields={})
        fields = tuple(Drift(*change, is_field=True) for change in field_changes(recorded, new.spec))
    before, after = (one.model_dump(mode="json", exclude={"spec"}) for one in (old, new))
    return (*fields, *value_drift(before, after))


def value_drift(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Drift, ...]:
    """What differs between two JSON mappings, in order of name."""
    before, after = dict(_leaves(old, "")), dict(_leaves(new, ""))
    pairs = ((name, before.get(name, ""), after.get(name, "")) for name in sorted({*before, *after}))
    return tuple(Drift(name, a, b) for name, a, b in pairs if a != b)


def split_pin(pin: str) -> tuple[str, str]:
    """Version and bare SHA-256 of a pin."""
    version, _, digest = pin.partition(" sha256:")
    return version, digest


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
