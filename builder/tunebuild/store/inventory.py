"""What a store holds, and how it is kept small and sound."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebuild.errors import TunebuildError, fail
from tunebuild.store.digest import Digest
from tunebuild.store.stage import Progress
from tunebuild.store.store import Store
from tunebuild.store.tree import load_manifest

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished stage.

    Attributes:
        key: as ``stage-abcdef...``, which ``explain`` takes, also shortened.
        path: its record.
        tree: digest of its output.
        size: bytes of its output; another record may name the same output.
        used: when it was last made or found, in seconds since the epoch.
        names: of the specs whose builds have used it, in order.
    """

    key: str
    path: Path
    tree: Digest
    size: int
    used: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that no record names: an unfinished run, or an output whose record is gone."""

    path: Path
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed: keys of records, leftovers, and the bytes that this frees."""

    keys: tuple[str, ...]
    leftovers: tuple[Path, ...]
    freed: int


def records(store: Store) -> list[Kept]:
    """All finished stages, most recently used first."""
    found = []
    names: dict[str, list[str]] = {}
    for use in sorted((store.root / "builds").glob("*/*")):
        names.setdefault(use.name, []).append(use.parent.name)
    for path in (store.root / "records").glob("*/*.json"):
        try:
            record = json.loads(path.read_text("utf-8"))
            status = path.stat()
        except FileNotFoundError:
            continue  # another process collects
        tree = Digest(record["output"])
        key = f"{path.parent.name}-{path.stem[:24]}"
        size = _tree_size(store, tree)
        found.append(Kept(key, path, tree, size, status.st_mtime, tuple(names.get(key, ()))))
    return sorted(found, key=lambda kept: kept.used, reverse=True)


def unfinished(store: Store) -> list[Leftover]:
    """Work directories: of builds that run now, or were killed and may go on."""
    return [_leftover(path) for path in sorted((store.root / "work").iterdir())]


def unnamed(store: Store) -> list[Leftover]:
    """Outputs that no record names."""
    named = {kept.tree.removeprefix("sha256:") for kept in records(store)}
    trees = [path for path in sorted((store.root / "trees").iterdir()) if path.suffix != ".json"]
    return [_leftover(path) for path in trees if path.name not in named]


def find_record(store: Store, key: str) -> Kept:
    """The one record whose key starts with ``key``.

    Raises:
        TunebuildError: there is none, or several.
    """
    found = [kept for kept in records(store) if kept.key.startswith(key)]
    if len(found) != 1:
        message = f"{len(found)} records start with '{key}'" if found else f"no record starts with '{key}'"
        raise fail("no-record", message, "'tunebuild cache ls' lists them")
    return found[0]


def recorded_inputs(kept: Kept) -> dict[str, Any]:
    """What a finished stage was made from."""
    inputs: dict[str, Any] = json.loads(kept.path.read_text("utf-8"))["inputs"]
    return inputs


def collect(
    store: Store,
    *,
    older_than: float | None = None,
    max_bytes: int | None = None,
    dry_run: bool = False,
    now: float | None = None,
) -> Collected:
    """Remove what is not needed: least recently used records first, then what no record names.

    Args:
        store: the store.
        older_than: remove records that were not used for so many seconds.
        max_bytes: remove records until the outputs of the others have no more bytes than that.
        dry_run: only say what would go.
        now: seconds since the epoch; the clock if left out.

    Whatever a running build holds stays, and so does an output younger than a day that no record names:
    a build may be about to. A kill at any moment leaves outputs that no record names, and the
    next collection takes those.
    """
    now = time.time() if now is None else now
    everything = records(store)
    going = [k for k in everything if older_than is not None and now - k.used > older_than]
    if max_bytes is not None:
        staying = [k for k in everything if k not in going]
        while staying and _bytes_of(staying) > max_bytes:
            going.append(staying.pop())
    removed = [kept for kept in going if dry_run or _remove_record(store, kept)]
    staying_trees = {k.tree for k in everything if k not in removed}
    freed = _bytes_of([k for k in removed if k.tree not in staying_trees])
    stale = [left for left in unfinished(store) if now - left.used > _DAY]
    ours = {_tree_path(store, k.tree) for k in removed}
    idle = [left for left in unnamed(store) if left.path in ours or now - left.used > _DAY]
    if not dry_run:
        stale = [left for left in stale if _remove_work(store, left)]
        for left in idle:
            _remove_tree(left.path)
        freed = 0  # those outputs are among the unnamed now
    leftovers = (*stale, *idle)
    return Collected(
        tuple(k.key for k in removed),
        tuple(left.path for left in leftovers),
        freed + sum(left.size for left in leftovers),
    )


def damaged(store: Store, progress: Progress) -> Iterator[tuple[Kept, TunebuildError]]:
    """Read every byte of every output back; the records whose output is not what was written."""
    everything = records(store)
    seen: dict[Digest, TunebuildError | None] = {}
    for number, kept in enumerate(everything, 1):
        if kept.tree not in seen:
            seen[kept.tree] = _damage(store, kept.tree)
        progress.step(number, len(everything), kept.key)
        if error := seen[kept.tree]:
            yield kept, error


def drop(store: Store, kept: Kept) -> None:
    """Forget a record and its output, so that the next build makes it anew."""
    _remove_record(store, kept)
    _remove_tree(_tree_path(store, kept.tree))


def _damage(store: Store, tree: Digest) -> TunebuildError | None:
    place = _tree_path(store, tree)
    try:
        if not place.with_suffix(".json").is_file():
            raise fail("store-corrupt", f"{place} is gone")
        store.verify(load_manifest(place, place.with_suffix(".json")))
    except TunebuildError as error:
        return error
    return None


def _remove_record(store: Store, kept: Kept) -> bool:
    with _idle(store, kept.key) as idle:
        if idle:
            kept.path.unlink(missing_ok=True)
            for use in (store.root / "builds").glob(f"*/{kept.key}"):
                use.unlink(missing_ok=True)
        return idle


def _remove_work(store: Store, left: Leftover) -> bool:
    with _idle(store, left.path.name) as idle:
        if idle:
            _remove_tree(left.path)
        return idle


def _remove_tree(path: Path) -> None:
    """Out of the way first: half an output is never seen under its name."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        aside = path
    path.with_suffix(".json").unlink(missing_ok=True)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _idle(store: Store, key: str) -> Iterator[bool]:
    """Whether no build holds the key; none can take it inside the block if so."""
    with (store.root / "locks" / f"{key}.lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _bytes_of(kept: list[Kept]) -> int:
    """Bytes of the outputs of some records, each output once."""
    return sum({k.tree: k.size for k in kept}.values())


def _tree_path(store: Store, tree: Digest) -> Path:
    return store.root / "trees" / tree.removeprefix("sha256:")


def _tree_size(store: Store, tree: Digest) -> int:
    place = _tree_path(store, tree)
    try:
        return sum(file.size for file in load_manifest(place, place.with_suffix(".json")).files)
    except FileNotFoundError:
        return 0


def _leftover(path: Path) -> Leftover:
    files = [p for p in path.rglob("*") if p.is_file()]
    used = max((p.stat().st_mtime for p in (path, *files)), default=0.0)
    return Leftover(path, sum(p.stat().st_size for p in files), used)
