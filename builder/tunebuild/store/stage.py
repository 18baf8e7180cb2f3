"""What a build step is: named inputs that make its key, and a run that makes its output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tunebuild.store.digest import Digest, digest_json

#: A JSON value; nested mappings name the fields that ``plan`` compares.
Inputs = Mapping[str, Any]


class Progress(Protocol):
    """Where a running stage says how far it is. Implementations draw it or log it."""

    def step(self, done: float, total: float, note: str = "") -> None:
        """``done`` of ``total`` in the stage's own unit, with a short note such as the loss."""

    def say(self, text: str) -> None:
        """A line that a person should see even after the bar is gone."""


class Silent:
    """Progress for callers that do not look."""

    def step(self, done: float, total: float, note: str = "") -> None:
        """Ignore it."""

    def say(self, text: str) -> None:
        """Ignore it."""


class Stage(Protocol):
    """One step of a build. Its inputs are canonical and complete: equal inputs, equal meaning."""

    @property
    def name(self) -> str:
        """E.g. ``train``; part of the key."""

    @property
    def version(self) -> int:
        """Raised whenever the step's code changes what it would write for equal inputs."""

    def own(self) -> Inputs:
        """What the output depends on besides earlier stages: settings, the author's files by digest.

        Must not look at the outputs of earlier stages: ``plan`` asks for these inputs before anything ran.
        """

    def upstream(self) -> Inputs:
        """What earlier stages contribute: digests of those of their files that matter here."""

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Write the output into ``out`` (empty, exists).

        ``work`` survives a killed run of the same key, so a long step can go on from its checkpoints.
        """


@dataclass(frozen=True, slots=True)
class StageKey:
    """A stage's identity: its name and the digest of its version and inputs."""

    stage: str
    digest: Digest

    def __str__(self) -> str:
        return f"{self.stage}-{self.digest.removeprefix('sha256:')[:24]}"


def key_of(stage: Stage) -> StageKey:
    """The key under which a stage's output is kept."""
    return StageKey(stage.name, digest_json({"version": stage.version, "inputs": inputs_of(stage)}))


def inputs_of(stage: Stage) -> Inputs:
    """Everything that a stage's output depends on, its own inputs and those of earlier stages."""
    return {**stage.own(), **stage.upstream()}


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The fields, in key order, in which two inputs differ: dotted path, old and new value."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            inner = f"{path}.{name}" if path else name
            if name in old and name in new:
                yield from differences(old[name], new[name], inner)
            else:
                yield inner, old.get(name), new.get(name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from differences(a, b, f"{path}[{index}]")
    elif old != new:
        yield path, old, new
