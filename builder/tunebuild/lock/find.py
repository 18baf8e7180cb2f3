"""Where a spec's lock is: beside it, or beside a spec that it extends, shared with other overlays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunebuild.errors import fail
from tunebuild.lock.lock_file import Locks, read_locks, require_locks
from tunebuild.lock.spec_lock import SpecLock
from tunebuild.spec import LoadedSpec

#: The name of a lock that several specs share.
WORKSPACE = "tunebuild.lock"


@dataclass(frozen=True, slots=True)
class Found:
    """A spec's lock.

    Attributes:
        path: its file, or where it would be.
        lock: the spec's part; ``None`` if there is no file, or it does not name the spec.
        locks: the whole file, if there is one.
    """

    path: Path
    lock: SpecLock | None = None
    locks: Locks | None = None


def lock_path(spec: Path) -> Path:
    """Where the lock of one spec is: ``spec.lock`` beside ``spec.yaml``."""
    return spec.with_suffix(".lock")


def find_lock(loaded: LoadedSpec, given: Path | None = None) -> Found:
    """The lock of a spec.

    Args:
        loaded: the spec.
        given: the file to use, and no other.

    Raises:
        TunebuildError: ``lock-damaged``; ``two-locks``: its own lock and a shared one both name it; or
            ``no-lock``: there is no such file as was given.
    """
    if given is not None:
        locks = require_locks(given)
        return Found(given, locks.of(loaded.file), locks)
    own = lock_path(loaded.file)
    beside = read_locks(own)
    mine = Found(own, beside.of(loaded.file) if beside else None, beside)
    shared = [found for found in _shared(loaded) if found.path.resolve() != own.resolve()]
    naming = next((found for found in shared if found.lock), None)
    if naming and mine.lock:
        message = f"{own} and {naming.path} both lock {loaded.file}"
        raise fail("two-locks", message, f"remove {own}, or its entry in {naming.path}")
    return naming or (mine if beside else next(iter(shared), mine))


def place_of(specs: Sequence[LoadedSpec]) -> Path:
    """Where the lock of specs is written: of one, where it is now, else beside it; of several, beside their
    common base.

    Raises:
        TunebuildError: ``lock-where``: they have no base in common, nor a directory.
    """
    if len(specs) == 1:
        return find_lock(specs[0]).path
    common = set.intersection(*(set(_bases(one)) for one in specs))
    if not common:
        raise fail(
            "lock-where", "the specs have neither a common base nor one directory", "say where: -o FILE"
        )
    nearest = max(common, key=lambda folder: (len(folder.parts), folder))
    relative = Path(os.path.relpath(nearest))
    return (nearest if relative.parts.count("..") > 2 else relative) / WORKSPACE


def _shared(loaded: LoadedSpec) -> Iterator[Found]:
    """The locks beside the spec and what it extends, the nearest first."""
    seen: set[Path] = set()
    # As the spec was named, so that messages say it like that.
    own = loaded.directory if loaded.file.is_symlink() else loaded.file.parent
    for name in (".", *reversed(loaded.document.folders)):
        path = Path(os.path.normpath(own / name)) / WORKSPACE
        if path.resolve() not in seen and (locks := read_locks(path)):
            seen.add(path.resolve())
            yield Found(path, locks.of(loaded.file), locks)


def _bases(loaded: LoadedSpec) -> tuple[Path, ...]:
    """The directories of what a spec extends; its own if it extends nothing."""
    return tuple(folder.resolve() for folder in loaded.folder.others) or (loaded.directory,)
