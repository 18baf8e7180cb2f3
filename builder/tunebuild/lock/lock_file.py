"""The lock file of one spec or several: each pin once, one thing a line, made to be reviewed.

Paths in it start at its own directory; those of a :class:`SpecLock` at the spec's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunebuild.errors import TunebuildError, fail
from tunebuild.lock._pool import identity, pin_name, pooled, runtime_names
from tunebuild.lock.record import SpecRecord
from tunebuild.lock.spec_lock import Pins, RepositoryLock, RuntimeLock, SpecLock
from tunebuild.store import Digest
from tunebuild.store.atomic import write_atomically


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class LockedSpec(_Part):
    """A spec: its fields, and the names of the pins that it uses."""

    digest: Digest
    fields: dict[str, Any]
    template: tuple[str, ...]
    files: tuple[str, ...]
    model: str
    datasets: tuple[str, ...]
    runtime: str


class LockedRuntime(_Part):
    """A runtime: what it was resolved for, and the names of its packages and wheels."""

    platform: str
    device: Literal["cpu", "cuda"]
    suite: str
    python: str
    requirements: tuple[str, ...]
    packages: tuple[str, ...]
    wheels: tuple[str, ...]


class LockFile(_Part):
    """A whole lock file."""

    lock_version: Literal[2] = Field(default=2, alias="lockVersion")
    tunebuild: str
    specs: dict[str, LockedSpec]
    defaults: dict[str, Any]
    templates: dict[str, Digest]
    files: dict[str, Digest]
    models: dict[str, RepositoryLock]
    datasets: dict[str, RepositoryLock]
    runtimes: dict[str, LockedRuntime]
    packages: Pins
    wheels: Pins

    def record_of(self, name: str) -> SpecRecord:
        """The fields of one of its specs."""
        one = self.specs[name]
        return SpecRecord(digest=one.digest, fields=one.fields, defaults=self.defaults)

    @property
    def pins(self) -> dict[str, Any]:
        """What is pinned, as JSON values: everything that is not about a spec."""
        named = {"packages", "wheels"}
        runtimes = {key: one.model_dump(mode="json", exclude=named) for key, one in self.runtimes.items()}
        about = {"lock_version", "specs", "defaults", "runtimes"}
        return {**self.model_dump(mode="json", exclude=about), "runtimes": runtimes}


class _FirstFormat(SpecLock):
    """A lock of one spec that recorded no fields; its pins are still good."""

    lock_version: Literal[1] = Field(default=1, alias="lockVersion")


class Locks:
    """What a lock file says, spec by spec.

    Args:
        path: of the file; paths in it start at its directory.
        specs: by the specs' paths from there.
        first: the whole of a file of the first format, which does not name its spec.
    """

    def __init__(self, path: Path, specs: Mapping[str, SpecLock], first: SpecLock | None = None) -> None:
        self.path = path
        self.specs = dict(sorted(specs.items()))
        self.first = first

    def of(self, spec: Path) -> SpecLock | None:
        """A spec's part; ``None`` if the file does not name it."""
        return self.first or self.specs.get(name_of(spec, self.path))

    @property
    def files(self) -> tuple[Path, ...]:
        """The specs that it names."""
        return tuple(self.path.parent / name for name in self.specs)


def name_of(spec: Path, lock: Path) -> str:
    """A spec's name in a lock file: its path from there."""
    return Path(os.path.relpath(spec.resolve(), lock.parent.resolve())).as_posix()


def read_locks(path: Path) -> Locks | None:
    """A lock file, or ``None`` if there is none.

    Raises:
        TunebuildError: ``lock-damaged``: it cannot be read, or a newer version of tunebuild wrote it.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise fail(
            "lock-damaged", f"cannot read {path}: {error}", "take it back from version control"
        ) from None
    version = _version(text)
    if isinstance(version, int) and version > 2:
        message = f"{path} has format {version}, which this version of tunebuild does not know"
        raise fail("lock-damaged", message, "use the version that made it, or a newer one")
    try:
        if version == 1:
            first = _FirstFormat.model_validate_json(text)
            return Locks(path, {}, SpecLock(**{name: getattr(first, name) for name in SpecLock.model_fields}))
        return Locks(path, split(LockFile.model_validate_json(text), path))
    except ValidationError as error:
        first_error = error.errors()[0]
        place = ".".join(map(str, first_error["loc"]))
        raise _damaged(path, f"{f'{place}: ' if place else ''}{first_error['msg']}") from None
    except KeyError as error:
        raise _damaged(path, f"a spec names {error}, which is not pinned") from None


def require_locks(path: Path) -> Locks:
    """A lock file that has to be there.

    Raises:
        TunebuildError: ``no-lock``, or as :func:`read_locks`.
    """
    if locks := read_locks(path):
        return locks
    raise fail("no-lock", f"there is no {path}", f"make it with 'tunebuild lock SPEC -o {path}'")


def write_locks(lock: LockFile, path: Path) -> None:
    """Write it, or leave the old one whole."""
    text = json.dumps(lock.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False)
    write_atomically(path, text + "\n")


def joined(specs: Mapping[str, SpecLock], path: Path) -> LockFile:
    """The file of several specs' locks; nothing in it depends on the order in which they come.

    Args:
        specs: by their names in the file, with their records. Those that name the same file, repository or
            model have the same pin for it.
        path: of the file.
    """
    ordered = dict(sorted(specs.items()))
    runtimes = runtime_names([one.runtime for one in ordered.values()])
    packages, package_names = pooled({name: one.packages for name, one in runtimes.items()})
    wheels, wheel_names = pooled({name: one.wheels for name, one in runtimes.items()})
    labels = {identity(one): name for name, one in runtimes.items()}
    records: dict[str, LockedSpec] = {}
    pins: dict[str, dict[str, Any]] = {kind: {} for kind in ("defaults", "templates", "files")}
    repositories: dict[str, dict[str, RepositoryLock]] = {"models": {}, "datasets": {}}
    for name, one in ordered.items():
        assert one.spec is not None
        led = _Led(name, path)
        files = {led.out(file): digest for file, digest in one.files.items()}
        templates = {led.marked_out(file): digest for file, digest in one.template.items()}
        model = one.model.model_copy(update={"base": led.marked_out(one.model.base)})
        pins["defaults"] |= one.spec.defaults
        pins["files"] |= files
        pins["templates"] |= templates
        repositories["models"][_model_name(model)] = _in_order(model)
        repositories["datasets"] |= {key: _in_order(dataset) for key, dataset in one.datasets.items()}
        records[name] = LockedSpec(
            digest=one.spec.digest,
            fields=dict(sorted(one.spec.fields.items())),
            template=tuple(sorted(templates)),
            files=tuple(sorted(files)),
            model=_model_name(model),
            datasets=tuple(sorted(one.datasets)),
            runtime=labels[identity(one.runtime)],
        )
    return LockFile(
        tunebuild=next(iter(ordered.values())).tunebuild,
        specs=records,
        runtimes={
            name: LockedRuntime(
                **one.model_dump(exclude={"packages", "wheels"}),
                packages=package_names[name],
                wheels=wheel_names[name],
            )
            for name, one in runtimes.items()
        },
        packages=packages,
        wheels=wheels,
        defaults=dict(sorted(pins["defaults"].items())),
        templates=dict(sorted(pins["templates"].items())),
        files=dict(sorted(pins["files"].items())),
        models=dict(sorted(repositories["models"].items())),
        datasets=dict(sorted(repositories["datasets"].items())),
    )


def split(lock: LockFile, path: Path) -> dict[str, SpecLock]:
    """Each spec's part of a file.

    Raises:
        KeyError: a spec or a runtime names something that is not pinned.
    """
    runtimes = {
        name: RuntimeLock(
            **one.model_dump(exclude={"packages", "wheels"}),
            packages={pin_name(key): lock.packages[key] for key in one.packages},
            wheels={pin_name(key): lock.wheels[key] for key in one.wheels},
        )
        for name, one in lock.runtimes.items()
    }
    return dict(_split(lock, path, runtimes))


def _split(lock: LockFile, path: Path, runtimes: Mapping[str, RuntimeLock]) -> Iterator[tuple[str, SpecLock]]:
    for name, one in lock.specs.items():
        led, model = _Led(name, path), lock.models[one.model]
        yield (
            name,
            SpecLock(
                tunebuild=lock.tunebuild,
                spec=lock.record_of(name),
                template={led.marked_back(key): lock.templates[key] for key in one.template},
                files={led.back(key): lock.files[key] for key in one.files},
                model=model.model_copy(update={"base": led.marked_back(model.base)}),
                datasets={key: lock.datasets[key] for key in one.datasets},
                runtime=runtimes[one.runtime],
            ),
        )


class _Led:
    """Paths from a spec's directory to paths from the lock's, and back."""

    def __init__(self, spec: str, lock: Path) -> None:
        self.lock = os.path.realpath(lock.parent)
        self.spec = os.path.dirname(os.path.normpath(os.path.join(self.lock, spec)))  # noqa: PTH118, PTH120

    def out(self, name: str) -> str:
        return _moved(name, self.spec, self.lock)

    def back(self, name: str) -> str:
        return _moved(name, self.lock, self.spec)

    def marked_out(self, name: str) -> str:
        return marked(self.out(name)) if is_path(name) else name

    def marked_back(self, name: str) -> str:
        return marked(self.back(name)) if is_path(name) else name


def is_path(name: str) -> bool:
    """Whether it is the path of a file or directory, as it is told from a name."""
    return name.startswith(("./", "../", "/"))


def marked(path: str) -> str:
    """A path that is told from a name."""
    return path if path.startswith(("../", "/")) else f"./{path}"


def _moved(name: str, start: str, end: str) -> str:
    if name.startswith("/"):
        return name
    return os.path.relpath(os.path.join(start, name), end)  # noqa: PTH118 - by name alone: links stay links


def _model_name(model: RepositoryLock) -> str:
    if is_path(model.base) or "://" in model.base:
        return model.base
    return f"{model.base}@{model.revision or 'main'}"


def _in_order(lock: RepositoryLock) -> RepositoryLock:
    return lock.model_copy(update={"files": dict(sorted(lock.files.items()))})


def _version(text: str) -> object:
    """The format's version, as far as the file tells."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value.get("lockVersion", 1) if isinstance(value, dict) else None


def _damaged(path: Path, problem: str) -> TunebuildError:
    hint = "a merge conflict? take one side, or remove the file, and run 'tunebuild lock'"
    return fail("lock-damaged", f"{path} is not a lock: {problem}", hint)
