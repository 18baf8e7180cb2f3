"""Keys of other tools' configurations: which of ours says the same, or what we decide ourselves and how.

``validate`` answers a key of another tool with it, and the importers carry such keys over by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunebuild.spec._foreign_keys import ALIKE, OURS, SAME


@dataclass(frozen=True, slots=True)
class Meaning:
    """What another tool's key is about.

    Attributes:
        path: our key with the same meaning; empty if there is none.
        topic: what we decide in its place, as a word; empty if ``path`` says it.
        hint: what to say instead, as a sentence; empty if ``path`` says it.
    """

    path: str = ""
    topic: str = ""
    hint: str = ""


def meaning_of(key: str) -> Meaning | None:
    """What another tool's key means here, or ``None`` if no tool is known to have it."""
    return _MEANINGS.get(_plain(key))


def foreign_hint(key: str, here: str) -> str:
    """What to say instead of another tool's key; empty if no tool is known to have it.

    Args:
        key: as it is written.
        here: dotted path of the section that it stands in; empty at the top.
    """
    meaning = meaning_of(key) if _plain(key) in FOREIGN_KEYS else None
    if meaning is None or not meaning.path:
        return meaning.hint if meaning else ""
    section, _, name = meaning.path.rpartition(".")
    return f"did you mean '{name}'?" if section == here else f"did you mean {meaning.path}?"


def _plain(key: str) -> str:
    return key.lower().replace("-", "_").lstrip("_")


_MEANINGS = {
    **{theirs: Meaning(path=path) for path, names in ALIKE.items() for theirs in names.split()},
    **{theirs: Meaning(path=path) for path, names in SAME.items() for theirs in names.split()},
    **{
        theirs: Meaning(topic=topic, hint=hint)
        for topic, (hint, names) in OURS.items()
        for theirs in names.split()
    },
}

#: Every key of another tool that is not also called so here.
FOREIGN_KEYS = frozenset(name for name in _MEANINGS if name not in " ".join(ALIKE.values()).split())
