"""Where a tool's rows come from: a file beside the spec, or a split of a repository on the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebuild.importers.work import Work, shown
from tunebuild.spec.endings import ENDINGS

_SLICE = re.compile(r"(?P<split>[\w.-]+)(?:\[(?P<start>[^\]:]*):(?P<end>[^\]:]*)\])?")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one source of rows stands in configuration and spec.

    Attributes:
        key: of the name of the file or repository.
        path: of the source in the spec, such as ``data.train[0]``.
    """

    key: str
    path: str


def first_file(work: Work, key: str, path: str, files: Any) -> tuple[str, str | None]:
    """The file to train on of ``data_files``, with its key; what else it names is listed as not carried.

    Args:
        work: the import.
        key: of ``data_files``.
        path: of the source in the spec.
        files: a name, a list of names, or either by split; anything else gives ``None``.
    """
    if isinstance(files, Mapping):
        for split in files:
            if split != "train":
                text = "a source is one file, and that of another split is not read"
                todo = "name it in data.eval.files if its rows are held out"
                work.ledger.lost(f"{key}.{split}", text, todo)
        key, files = f"{key}.train", files.get("train")
    if isinstance(files, list):
        if len(files) > 1:
            text = f"{path}: of {len(files)} data_files the first is written; add the others as sources"
            work.note(text, attention=True)
        files = files[0] if files else None
    return key, files if isinstance(files, str) else None


def carry_location(work: Work, place: Place, name: str, *, folder: str = "") -> bool:
    """Carry the file or repository that a name means; returns whether it is a repository.

    Args:
        work: the import.
        place: where it stands.
        name: a path, a hub id or an address.
        folder: the directory that the tool looks for files in, from the configuration's.
    """
    if "://" in name:
        return _carry_address(work, place, name)
    if local := _local(work, name, folder):
        work.draft.set(f"{place.path}.path", local)
        work.ledger.carried(place.key, f"{place.path}.path")
        return False
    if name.lower().endswith(ENDINGS) or name.startswith((".", "/", "~")):
        _carry_absent(work, place, name)
        return False
    work.draft.set(f"{place.path}.hub", name)
    work.ledger.carried(place.key, f"{place.path}.hub")
    return True


def carry_split(work: Work, key: str, path: str, split: str | None, *, of_file: bool = False) -> None:
    """Carry the name of a split, which may end in a slice such as ``[:500]``.

    Args:
        work: the import.
        key: of the split; nothing is settled if the configuration has none.
        path: of the source in the spec.
        split: as it is written; ``train`` if left out, as in all these tools.
        of_file: whether the source is one file, which has no splits here.
    """
    match = _SLICE.fullmatch((split or "train").strip())
    if not of_file:
        work.draft.set(f"{path}.split", match["split"] if match else "train")
    if not split:
        return
    start, end = (match["start"] or "", match["end"] or "") if match else ("", "")
    if match is None:
        text = f"one source is one split here, and {shown(split)} is none; train is written"
        work.ledger.lost(key, text, "name each split as a source of its own")
    elif not start and end.isdigit() and int(end) > 0:
        work.draft.set(f"{path}.max_rows", int(end))
        work.ledger.carried(key, f"{path}.max_rows")
    elif start or end:
        text = (
            f"all rows of '{match['split']}' are read; a slice that begins later, or is a share, "
            "cannot be said"
        )
        work.ledger.lost(key, text, f"set {path}.max_rows to the number of rows wanted")
    elif of_file:
        work.ledger.same(key, "a file has no splits, and all of it is read")
    else:
        work.ledger.carried(key, f"{path}.split")


def _local(work: Work, name: str, folder: str) -> str | None:
    """A file's path from the spec's directory, if it is there and inside."""
    starts = (work.source.parent, work.directory, Path.cwd())
    for start in (start / inside for start in starts for inside in (folder, "")):
        try:
            file = (start / Path(name).expanduser()).resolve()
            if file.is_file() and file.is_relative_to(work.directory.resolve()):
                return str(file.relative_to(work.directory.resolve()))
        except (OSError, RuntimeError, ValueError):  # no home, a name too long, a NUL
            continue
    return None


def _carry_absent(work: Work, place: Place, name: str) -> None:
    path = Path(name)
    inside = not path.is_absolute() and ".." not in path.parts and not name.startswith("~")
    ours = str(path) if inside else path.name or "rows.jsonl"
    comment = "" if ours.lower().endswith(ENDINGS) else "A file, or a pattern such as rows/*.jsonl."
    work.draft.set(f"{place.path}.path", ours, comment)
    work.ledger.carried(place.key, f"{place.path}.path")
    if not inside:
        work.note(f"{place.path}.path: copy {name} beside the spec", attention=True)


def _carry_address(work: Work, place: Place, name: str) -> bool:
    ours = name.partition("?")[0].rstrip("/").rpartition("/")[2] or "rows.jsonl"
    work.draft.set(f"{place.path}.path", ours, "Fetched from the other tool's address.")
    text = f"rows are read from files beside the spec or from the hub, not from {shown(name)}"
    work.ledger.lost(place.key, text, f"fetch it beside the spec as {ours}")
    return False
