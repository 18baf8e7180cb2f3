"""The specs that one lock file covers: locked together, checked together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunebuild.build.lock import make_locks, require_no_drift
from tunebuild.build.pipeline import Pipeline
from tunebuild.errors import Diagnostic, TunebuildError, fail
from tunebuild.lock.find import Found, find_lock, lock_path, place_of
from tunebuild.lock.lock_file import LockFile, Locks, joined, name_of, read_locks, require_locks
from tunebuild.lock.record import field_changes
from tunebuild.lock.spec_lock import SpecLock, value_drift
from tunebuild.spec import LoadedSpec, load_spec
from tunebuild.store import Progress, Store


@dataclass(frozen=True, slots=True)
class LockSet:
    """Specs and the file that locks them.

    Attributes:
        path: the lock file.
        locks: what it says now, if it is there.
        specs: by their names in it.
    """

    path: Path
    locks: Locks | None
    specs: Mapping[str, LoadedSpec]

    @classmethod
    def of(cls, files: Sequence[Path], overrides: Sequence[str], given: Path | None) -> LockSet:
        """The specs that are named, and all others in their lock file that are still there.

        Args:
            files: the specs; if empty, those that ``given`` names.
            overrides: ``PATH=VALUE`` texts, for all of them.
            given: the lock file; where it belongs if left out.

        Raises:
            TunebuildError: what is wrong with specs or lock.
        """
        named = _load(files, overrides)
        path = given or place_of(named)
        locks = read_locks(path)
        specs = {name_of(one.file, path): one for one in named}
        others = [file for file in _named_by(locks) if name_of(file, path) not in specs and file.is_file()]
        specs |= {name_of(one.file, path): one for one in _load(others, overrides)}
        if not specs:
            raise fail("lock-where", f"{path} names no specs", f"name them: 'tunebuild lock SPEC -o {path}'")
        return cls(path, locks, specs)

    def resolve(self, store: Store, update: Sequence[str], reporter: Callable[[str], Progress]) -> LockFile:
        """The new lock; see :func:`tunebuild.build.lock.make_locks`."""
        own = {name: lock for name, one in self.specs.items() if (lock := self._present(one))}
        pipelines = {name: Pipeline(one, store, own.get(name)) for name, one in self.specs.items()}
        others = self.locks.specs.values() if self.locks else ()
        return joined(make_locks(pipelines, (*own.values(), *others), update, reporter), self.path)

    @property
    def present(self) -> LockFile | None:
        """What the file says now; ``None`` if there is none, or it has the first format."""
        return joined(self.locks.specs, self.path) if self.locks and self.locks.specs else None

    @property
    def superseded(self) -> tuple[Path, ...]:
        """Lock files of single specs, which this one replaces."""
        own = dict.fromkeys(lock_path(one.file) for one in self.specs.values())
        return tuple(path for path in own if path.is_file() and path.resolve() != self.path.resolve())

    def _present(self, loaded: LoadedSpec) -> SpecLock | None:
        """What is locked now: by this file, or else by the spec's own."""
        if self.locks and (lock := self.locks.of(loaded.file)):
            return lock
        beside = read_locks(lock_path(loaded.file))
        return beside.of(loaded.file) if beside else None


def check_locks(
    files: Sequence[Path], overrides: Sequence[str], given: Path | None, store: Store
) -> tuple[Path, ...]:
    """Demand that locks say what would be built from specs, and from all others that those locks name.

    Args:
        files: the specs; if empty, those that ``given`` names.
        overrides: ``PATH=VALUE`` texts, for all of them.
        given: the lock file of all; each spec's own or shared one if left out.
        store: where digests of files are remembered.

    Returns:
        The lock files.

    Raises:
        TunebuildError: everything that is wrong with any of them.
    """
    waiting = [(file, given) for file in files]
    if not files and given:
        waiting = [(file, given) for file in _named_by(require_locks(given))]
    problems: list[Diagnostic] = []
    paths: dict[Path, None] = {}
    seen: set[Path] = set()
    while waiting:
        file, named_by = waiting.pop(0)
        if file.resolve() in seen:
            continue
        seen.add(file.resolve())
        try:
            if named_by and not file.is_file():
                hint = "run 'tunebuild lock' of the others, which forgets it"
                raise fail("lock-drift", f"{named_by} names {file}, which is not there", hint)
            loaded = load_spec(file, overrides)
            found = find_lock(loaded, given)
            paths[found.path] = None
            waiting += [(other, found.path) for other in _named_by(found.locks)]
            _check(Pipeline(loaded, store, found.lock), found)
        except TunebuildError as error:
            problems += error.diagnostics  # the others are still told
    if problems:
        raise TunebuildError(tuple(dict.fromkeys(problems)))
    return tuple(paths)


def changes(old: LockFile, new: LockFile) -> Iterator[str]:
    """What a new lock says otherwise than the old one, a line each: specs and their fields, then pins."""
    for name in sorted({*old.specs, *new.specs}):
        if name not in old.specs or name not in new.specs:
            yield f"{'+' if name in new.specs else '-'} {name}"
            continue
        for field, before, after in field_changes(old.record_of(name), new.record_of(name)):
            yield f"~ {name}: {field} {before or 'not set'} -> {after or 'not set'}"
    yield from map(str, value_drift(old.pins, new.pins))


def _check(pipeline: Pipeline, found: Found) -> None:
    try:
        require_no_drift(pipeline, found)
    except TunebuildError as error:
        raise pipeline.loaded.place(error) from error


def _named_by(locks: Locks | None) -> tuple[Path, ...]:
    return locks.files if locks else ()


def _load(files: Sequence[Path], overrides: Sequence[str]) -> list[LoadedSpec]:
    """All of them, or all that is wrong with any."""
    loaded: list[LoadedSpec] = []
    problems: list[Diagnostic] = []
    for file in files:
        try:
            loaded.append(load_spec(file, overrides))
        except TunebuildError as error:
            problems += error.diagnostics
    if problems:
        raise TunebuildError(tuple(dict.fromkeys(problems)))
    return loaded
