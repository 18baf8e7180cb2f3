"""Makes the locks of specs, and finds where the world has moved away from them.

What is fetched (the hub's commit, Debian packages, wheels) stays as it is locked until an update is asked
for; what is the author's own (the spec, data, templates, a model directory) is locked as it is now.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from tunebuild import __version__, resources
from tunebuild.build.pipeline import Pipeline
from tunebuild.data.source_files import wanted_datasets
from tunebuild.errors import TunebuildError, fail
from tunebuild.image.runtime import RuntimeStage, locked_runtime
from tunebuild.lock.find import Found
from tunebuild.lock.lock_file import marked
from tunebuild.lock.record import record_of
from tunebuild.lock.spec_lock import Drift, RepositoryLock, RuntimeLock, SpecLock, drift
from tunebuild.models.base_model import locked_model
from tunebuild.store import Digest, Progress, digest_bytes

_RuntimeKey = tuple[str, str, tuple[str, ...]]


def make_locks(
    pipelines: Mapping[str, Pipeline],
    old: Iterable[SpecLock],
    update: Sequence[str],
    reporter: Callable[[str], Progress],
) -> dict[str, SpecLock]:
    """Resolve everything that specs name, what several name only once.

    Args:
        pipelines: the specs by their names in the lock, each made with its present lock.
        old: the present locks, of these specs and of others.
        update: names of what may move: ``model``, ``datasets``, ``packages``, ``wheels``, ``all``, or the
            name of one dataset, Debian package or wheel.

    Raises:
        TunebuildError: a name in ``update`` is not in the lock, or something cannot be resolved.
    """
    old = tuple(old)
    resolver = _Resolver(old, _freed(old, update), reporter)
    # The runtime last: it takes minutes, and a name that is misspelt elsewhere should not.
    parts: dict[str, SpecLock] = {}
    for name, pipeline in pipelines.items():
        with _placed(pipeline):
            parts[name] = SpecLock.model_construct(
                tunebuild=__version__,
                spec=record_of(pipeline.spec),
                template=_template(pipeline),
                files=_files(pipeline),
                model=resolver.model(pipeline),
                datasets=resolver.datasets(pipeline),
            )
    for name, pipeline in pipelines.items():
        with _placed(pipeline):
            parts[name] = parts[name].model_copy(update={"runtime": resolver.runtime(pipeline)})
    return parts


def find_drift(pipeline: Pipeline, lock: SpecLock) -> tuple[Drift, ...]:
    """Where the spec and its files are not what the lock says. Fetches nothing.

    The rest of the lock needs no comparing, because a build takes it from the lock.
    """
    spec = pipeline.spec
    runtime = lock.runtime.model_copy(
        update={
            "platform": spec.image.platform,
            "device": spec.serving.device,
            "requirements": pipeline.wanted_runtime.requirements,
        }
    )
    model = lock.model
    if spec.model.is_local:
        model = _model(pipeline, lock.model)
    elif (model.base, model.revision) != (spec.model.base, spec.model.revision):
        model = model.model_copy(update={"base": spec.model.base, "revision": spec.model.revision})
    nothing = RepositoryLock(base="not locked", files={})
    now = SpecLock(
        tunebuild=__version__,
        spec=record_of(spec),
        template=_template(pipeline),
        files=_files(pipeline),
        model=model,
        datasets={name: lock.datasets.get(name, nothing) for name in wanted_datasets(pipeline.spec)},
        runtime=runtime,
    )
    if lock.spec is None:  # nothing to compare the fields with
        now = now.model_copy(update={"spec": None})
    return drift(lock, now)


def require_no_drift(pipeline: Pipeline, found: Found) -> None:
    """What ``--locked`` demands.

    Raises:
        TunebuildError: ``no-lock``; ``lock-old``: it does not record the spec; or ``lock-drift`` with
            everything that differs.
    """
    path, file = found.path, pipeline.loaded.file
    if found.lock is None:
        if found.locks is None:
            raise fail("no-lock", f"there is no {path}", "make it with 'tunebuild lock' and commit it")
        raise fail("no-lock", f"{path} does not name {file}", f"add it with 'tunebuild lock {file}'")
    if found.lock.spec is None:
        message = f"{path} has an older format, which does not record the spec's fields"
        raise fail("lock-old", message, f"run 'tunebuild lock {file}', which keeps its pins, and commit it")
    if moved := find_drift(pipeline, found.lock):
        lines = "".join(f"\n  {one}" for one in moved)
        raise fail(
            "lock-drift",
            f"{path} does not say what would be built from {file}:{lines}",
            f"run 'tunebuild lock {file}', and review",
        )


@contextmanager
def _placed(pipeline: Pipeline) -> Iterator[None]:
    """Give errors their place in the spec that they are about."""
    try:
        yield
    except TunebuildError as error:
        raise pipeline.loaded.place(error) from error


def _freed(old: Sequence[SpecLock], update: Sequence[str]) -> frozenset[str]:
    """Names of what is resolved anew; packages and wheels one by one."""
    groups = {
        "datasets": {name for one in old for name in one.datasets},
        "packages": {name for one in old for name in one.runtime.packages},
        "wheels": {name for one in old for name in one.runtime.wheels},
    }
    known = {"model"}.union(*groups.values())
    groups["all"] = known
    free: set[str] = set()
    for name in update if old else ():
        if name not in known and name not in groups:
            hint = "model, datasets, packages, wheels, all, or the name of one of those in the lock"
            raise fail("lock-name", f"the lock has no '{name}'", hint)
        free |= groups.get(name, {name})
    return frozenset(free)


class _Resolver:
    """Resolves what specs name, the same thing once.

    Args:
        old: the present locks, whose pins are kept.
        free: names of what is not.
        reporter: shows progress.
    """

    def __init__(
        self, old: Sequence[SpecLock], free: frozenset[str], reporter: Callable[[str], Progress]
    ) -> None:
        self.old = old
        self.free = free
        self.reporter = reporter
        self._models: dict[tuple[str, str | None], RepositoryLock] = {}
        self._datasets: dict[str, RepositoryLock] = {}
        self._runtimes: dict[_RuntimeKey, RuntimeLock] = {}

    def model(self, pipeline: Pipeline) -> RepositoryLock:
        wanted = pipeline.spec.model
        if wanted.is_local:
            return _model(pipeline, None)
        key = (wanted.base, wanted.revision)
        if key not in self._models:
            kept = () if "model" in self.free else self.old
            same = (one.model for one in kept if (one.model.base, one.model.revision) == key)
            self._models[key] = _model(pipeline, next(same, None))
        return self._models[key]

    def datasets(self, pipeline: Pipeline) -> dict[str, RepositoryLock]:
        named = wanted_datasets(pipeline.spec)
        for name, wanted in named.items():
            if name not in self._datasets:
                kept = () if name in self.free else self.old
                same = (one.datasets[name] for one in kept if name in one.datasets)
                self._datasets[name] = wanted.lock(next(same, None), pipeline.hub_cache)
        return {name: self._datasets[name] for name in named}

    def runtime(self, pipeline: Pipeline) -> RuntimeLock:
        wanted = pipeline.wanted_runtime
        key = (wanted.platform, wanted.device, wanted.requirements)
        if key not in self._runtimes:
            same = (one.runtime for one in self.old if _key(one.runtime) == key)
            # Its own that was made for other requirements still says which versions to keep.
            own = pipeline.lock.runtime if pipeline.lock else None
            old = next(same, own if own and _key(own)[:2] == key[:2] else None)
            self._runtimes[key] = _runtime(pipeline, old, self.free, self.reporter)
        return self._runtimes[key]


def _key(runtime: RuntimeLock) -> _RuntimeKey:
    return (runtime.platform, runtime.device, runtime.requirements)


def _files(pipeline: Pipeline) -> dict[str, Digest]:
    data = pipeline.spec.data
    directory = pipeline.loaded.directory
    local = (source for source in (*data.train, *data.eval.files) if source.hub is None)
    # However a path is spelt, the lock has it once.
    names = {os.path.normpath(name) for source in local for name in source.files(directory)}
    return {n: pipeline.store.memo.digest(directory / n) for n in sorted(names)}


def _template(pipeline: Pipeline) -> dict[str, Digest]:
    """The template's own file; the base model's template is among the model's files."""
    wanted = pipeline.spec.prompt.template
    if not isinstance(wanted, str):
        name = marked(os.path.normpath(wanted.file))
        return {name: pipeline.store.memo.digest(pipeline.loaded.directory / wanted.file)}
    if wanted == "base":
        return {}
    return {wanted: digest_bytes(resources.path("templates", "prompts", f"{wanted}.jinja").read_bytes())}


def _model(pipeline: Pipeline, locked: RepositoryLock | None) -> RepositoryLock:
    wanted = pipeline.spec.model
    found = locked_model(
        wanted, pipeline.loaded.directory, pipeline.hub_cache, pipeline.store.memo.digest, locked
    )
    return (
        found.model_copy(update={"base": marked(os.path.normpath(found.base))}) if wanted.is_local else found
    )


def _runtime(
    pipeline: Pipeline, old: RuntimeLock | None, free: frozenset[str], reporter: Callable[[str], Progress]
) -> RuntimeLock:
    """Prepare the runtime, which a build needs anyway, and pin what went into it."""
    progress = reporter("runtime")
    moving = free & {*(old.packages if old else ()), *(old.wheels if old else ())}
    # A mirror that is asked again may answer otherwise, so an update is never found in the store.
    asked = f"{time.time_ns()}" if moving else ""
    wanted, cache = pipeline.wanted_runtime, pipeline.store.root / "downloads"
    stage = RuntimeStage.of(wanted, cache, old, free=frozenset(moving), asked=asked)
    output = pipeline.store.find(stage) or pipeline.store.ensure(stage, progress)
    lock = locked_runtime(output, wanted)
    # What was just made is what this lock's own stage would make.
    pipeline.store.adopt(RuntimeStage.of(wanted, cache, lock), output)
    return lock
