"""A foreign configuration key by key: each ends as carried, as the same anyway, or as not carried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunebuild.errors import fail

#: What can become of a key.
Kind = Literal["carried", "same", "lost"]

_MOST_KEYS = 5_000
_DEEPEST = 30


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one key.

    Attributes:
        key: dotted path in the foreign configuration.
        kind: ``carried``, ``same`` (what tunebuild does anyway) or ``lost`` (not carried).
        path: where it stands in the spec; only for ``carried``.
        text: a remark for ``carried``, the reason for ``same``, the consequence for ``lost``.
        todo: what to do about it; only for ``lost``.
    """

    key: str
    kind: Kind
    path: str = ""
    text: str = ""
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A value that only running a script would tell.

    Attributes:
        source: the expression as it is written.
    """

    source: str


class Ledger:
    """The keys of a configuration and the outcome of each; the first outcome of a key stands."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self.value = value
        self.leaves: dict[str, Any] = {}
        for path, leaf in _leaves(value, "", 0):
            while path in self.leaves:  # {"a.b": 1, "a": {"b": 2}}: both are keys
                path += "'"
            self.leaves[path] = leaf
            if len(self.leaves) > _MOST_KEYS:
                message = f"has more than {_MOST_KEYS:,} keys, so it is not a configuration"
                raise fail("import-size", message, "give the file that the other tool is started with")
        self._outcomes: dict[str, Outcome] = {}

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """One for each key that has one, in the order of the configuration."""
        return tuple(self._outcomes[key] for key in self.leaves if key in self._outcomes)

    def carried(self, key: str, path: str, remark: str = "") -> None:
        """A key, or all below it, stands in the spec at ``path``."""
        self._settle(key, "carried", path=path, text=remark)

    def same(self, key: str, reason: str) -> None:
        """A key, or all below it, says what tunebuild does anyway."""
        self._settle(key, "same", text=reason)

    def lost(self, key: str, consequence: str, todo: str) -> None:
        """A key, or all below it, is not carried."""
        self._settle(key, "lost", text=consequence, todo=todo)

    def is_open(self, key: str) -> bool:
        """Whether a key, or one below it, has no outcome yet."""
        return any(leaf not in self._outcomes for leaf in self._below(key))

    def _settle(self, key: str, kind: Kind, **said: str) -> None:
        for leaf in self._below(key):
            self._outcomes.setdefault(leaf, Outcome(leaf, kind, **said))

    def _below(self, key: str) -> Iterator[str]:
        if key in self.leaves:
            yield key
        else:
            yield from (leaf for leaf in self.leaves if leaf.startswith((f"{key}.", f"{key}[")))


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Dotted paths of what is no mapping and no list of mappings; empty ones are leaves themselves."""
    if depth > _DEEPEST:
        raise fail("import-depth", f"'{path[:40]}...' is nested too deeply", "is it a configuration?")
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]", depth + 1)
    else:
        yield path, value
