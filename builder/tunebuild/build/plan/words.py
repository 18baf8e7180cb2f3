"""What a difference between two builds is, in sentences: rows added, a prompt's old and new text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from tunebuild.build.plan.report import Blast
from tunebuild.data.reading import read_rows
from tunebuild.errors import TunebuildError
from tunebuild.grammar import counted
from tunebuild.store import differences

# Fields whose names in the spec are not what people call them.
_NAMES = {"prompt.system": "system prompt", "prompt.template": "prompt template", "model.base": "base model"}
_SHOWN, _LONGEST = 12, 70
# Comparing row by row takes the square of this; beyond it rows are only counted.
_ALIGNED = 2_000
# By the stage whose own inputs a change shows in: what follows from it. The first one counts.
_CONSEQUENCES = {
    "data": "retrains",
    "train": "retrains",
    "merge": "merges again",
    "runtime": "other packages",
    "evaluate": "measured again",
    "export": "exported again",
    "image": "no training",
}
# Where a field shows under another name: the stage of its section.
_BY_SECTION = {
    "data": "data",
    "tuning": "train",
    "merge": "merge",
    "gates": "evaluate",
    "evaluation": "evaluate",
    "exports": "export",
}


@dataclass(frozen=True, slots=True)
class Side:
    """One of two builds.

    Attributes:
        spec: the effective spec.
        files: of rows and the template, by the name that the spec has for them; ``None`` where only digests
            are known.
        digests: of the files of rows, in order, by name.
    """

    spec: Mapping[str, Any]
    files: Mapping[str, Path] | None
    digests: Mapping[str, str] = field(default_factory=dict)


def in_words(old: Side, new: Side, found: Blast) -> tuple[str, ...]:
    """Everything that differs, a sentence each, with what follows from it."""
    lines = [*_rows(old, new), *_templates(old, new), *_fields(old, new, found), *_packages(found)]
    hidden = len(lines) - _SHOWN
    return tuple(lines if hidden <= 1 else [*lines[:_SHOWN], f"and {hidden} more differences"])


def _rows(old: Side, new: Side) -> Iterator[str]:
    before, after = set(old.digests), set(new.digests)
    gone = {name: old.digests[name] for name in sorted(before - after)}
    for name in sorted(after - before):
        former = next((n for n, digest in gone.items() if digest == new.digests[name]), None)
        if former is None:
            yield f"{name}: new, {_count(new, name)}; retrains"
        else:
            gone.pop(former)
            yield f"{name}: was called {former}; nothing follows"
    for name in gone:
        yield f"{name}: no longer used; retrains"
    for name in sorted(before & after):
        if old.digests[name] != new.digests[name]:
            yield f"{name}: {_changed(old, new, name)}; retrains"


def _count(side: Side, name: str) -> str:
    rows = _read(side, name)
    return "its rows are not at hand" if rows is None else counted(len(rows), "row")


def _changed(old: Side, new: Side, name: str) -> str:
    before, after = _read(old, name), _read(new, name)
    if before is None or after is None:
        return "other rows"
    return changed_rows(before, after) or "the same rows, written differently"


def changed_rows(before: Sequence[str], after: Sequence[str]) -> str:
    """How two lists of rows differ: ``1 row added, 2 changed``; empty if they do not."""
    start = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None)
    start = min(len(before), len(after)) if start is None else start
    before, after = before[start:], after[start:]
    gone, come = Counter(before) - Counter(after), Counter(after) - Counter(before)
    added, removed, changed = come.total(), gone.total(), 0
    if len(before) <= _ALIGNED and len(after) <= _ALIGNED:
        for tag, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if tag == "replace":
                changed += min(_take(gone, before[a:b]), _take(come, after[c:d]))
    added, removed = added - changed, removed - changed
    parts = [(added, "added"), (changed, "changed"), (removed, "removed")]
    said = [f"{count:,} {what}" for count, what in parts if count]
    if not said:
        return "the same rows in another order" if before != after else ""
    first, _, rest = said[0].partition(" ")
    return ", ".join([f"{first} row{'' if first == '1' else 's'} {rest}", *said[1:]])


def _take(left: Counter[str], rows: Sequence[str]) -> int:
    """How many of these rows one side alone has; each counts once, wherever it stands."""
    taken = 0
    for row in rows:
        if left[row]:
            left[row] -= 1
            taken += 1
    return taken


def _read(side: Side, name: str) -> list[str] | None:
    if side.files is None or name not in side.files:
        return None
    try:
        return [
            json.dumps(row.value, sort_keys=True, default=str) for row in read_rows(side.files[name], name)
        ]
    except TunebuildError:
        return None


def _templates(old: Side, new: Side) -> Iterator[str]:
    name = _template_file(new)
    if name and name == _template_file(old) and old.files and new.files:
        before, after = (side.files[name].read_bytes() for side in (old, new) if side.files)
        if before != after:
            yield f"{name}: the prompt template has changed; retrains"


def _template_file(side: Side) -> str | None:
    template = side.spec["prompt"]["template"]
    return template["file"] if isinstance(template, Mapping) else None


def _fields(old: Side, new: Side, found: Blast) -> Iterator[str]:
    for path, before, after in differences(_without_sources(old.spec), _without_sources(new.spec)):
        name = _NAMES.get(path, path)
        yield f"{name}: {_shown(before)} -> {_shown(after)}; {_consequence(path, found)}"


def _without_sources(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec, where sources of rows that differ in number or name are compared by their files."""
    return {
        **spec,
        "data": {
            **spec["data"],
            "train": {s.get("path") or s.get("hub"): s for s in spec["data"]["train"]},
            "eval": {
                **spec["data"]["eval"],
                "files": {s.get("path") or s.get("hub"): s for s in spec["data"]["eval"]["files"]},
            },
        },
    }


def _consequence(path: str, found: Blast) -> str:
    section, _, last = path.rpartition(".")
    if section == "prompt":
        return _CONSEQUENCES["data"]
    if path == "model.base":
        return _CONSEQUENCES["train"] if "train" in found.changes else "the same weights"
    for stage, consequence in _CONSEQUENCES.items():
        fields = (change.field for change in found.changes.get(stage, ()))
        if any(last in field.replace("[", ".").replace("]", "").split(".") for field in fields):
            return consequence
    top = path.partition(".")[0]
    if top in ("data", "tuning") and not {"data", "train"} & set(found.changes):
        return "nothing follows"
    return _CONSEQUENCES[_BY_SECTION.get(top, "image")]


def _packages(found: Blast) -> Iterator[str]:
    """Packages of the image, and libraries that stages compute with."""
    seen: set[str] = set()
    for stage, changes in found.changes.items():
        for change in changes:
            kind, _, name = change.field.partition(".")
            if kind in ("packages", "wheels", "libraries") and name not in seen:
                seen.add(name)
                yield f"{name}: {_version(change.old)} -> {_version(change.new)}; {_CONSEQUENCES[stage]}"


def _version(pin: Any) -> str:
    return "absent" if pin is None else str(pin).partition(" ")[0]


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
