"""Makes a spec's lock, and finds where the world has moved away from it.

What is fetched (the hub's commit, Debian packages, wheels) stays as it is locked until an update is asked
for; what is the author's own (data, templates, a model directory) is locked as it is now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tunebuild import __version__, resources
from tunebuild.build.pipeline import Pipeline
from tunebuild.data.source_files import wanted_datasets
from tunebuild.errors import fail
from tunebuild.image.runtime import RuntimeStage, locked_runtime
from tunebuild.lock.spec_lock import Drift, RepositoryLock, RuntimeLock, SpecLock, drift
from tunebuild.models.base_model import locked_model
from tunebuild.store import Digest, Progress, digest_bytes


def make_lock(
    pipeline: Pipeline, old: SpecLock | None, update: Sequence[str], reporter: Callable[[str], Progress]
) -> SpecLock:
    """Resolve everything that the spec names.

    Args:
        pipeline: the spec, made with ``old`` as its lock.
        old: the present lock.
        update: names of what may move: ``model``, ``datasets``, ``packages``, ``wheels``, ``all``, or the
            name of one dataset, Debian package or wheel.

    Raises:
        TunebuildError: a name in ``update`` is not in the lock, or something cannot be resolved.
    """
    free = _freed(old, update)
    template, files = _template(pipeline), _files(pipeline)
    model = _model(pipeline, keep="model" not in free)
    datasets = _datasets(pipeline, old, free)
    return SpecLock(
        tunebuild=__version__,
        template=template,
        files=files,
        model=model,
        datasets=datasets,
        # Last: it takes minutes, and a name that is misspelt above should not.
        runtime=_runtime(pipeline, old.runtime if old else None, free, reporter),
    )


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
        model = _model(pipeline, keep=True)
    elif (model.base, model.revision) != (spec.model.base, spec.model.revision):
        model = model.model_copy(update={"base": spec.model.base, "revision": spec.model.revision})
    nothing = RepositoryLock(base="not locked", files={})
    now = SpecLock(
        tunebuild=__version__,
        template=_template(pipeline),
        files=_files(pipeline),
        model=model,
        datasets={name: lock.datasets.get(name, nothing) for name in wanted_datasets(pipeline.spec)},
        runtime=runtime,
    )
    return drift(lock, now)


def require_no_drift(pipeline: Pipeline, lock: SpecLock | None, path: object) -> None:
    """What ``--locked`` demands.

    Raises:
        TunebuildError: ``no-lock``, or ``lock-drift`` with everything that differs.
    """
    if lock is None:
        raise fail("no-lock", f"there is no {path}", "make it with 'tunebuild lock' and commit it")
    if moved := find_drift(pipeline, lock):
        lines = "".join(f"\n  {one}" for one in moved)
        raise fail(
            "lock-drift",
            f"{path} does not say what would be built:{lines}",
            "run 'tunebuild lock', and review",
        )


def _freed(old: SpecLock | None, update: Sequence[str]) -> frozenset[str]:
    """Names of what is resolved anew; packages and wheels one by one."""
    if old is None:
        return frozenset(("model",))
    known = {"model", *old.datasets, *old.runtime.packages, *old.runtime.wheels}
    groups = {
        "datasets": set(old.datasets),
        "packages": set(old.runtime.packages),
        "wheels": set(old.runtime.wheels),
        "all": known,
    }
    free: set[str] = set()
    for name in update:
        if name not in known and name not in groups:
            hint = "model, datasets, packages, wheels, all, or the name of one of those in the lock"
            raise fail("lock-name", f"the lock has no '{name}'", hint)
        free |= groups.get(name, {name})
    return frozenset(free)


def _files(pipeline: Pipeline) -> dict[str, Digest]:
    data = pipeline.spec.data
    directory = pipeline.loaded.directory
    local = (source for source in (*data.train, *data.eval.files) if source.hub is None)
    names = {name for source in local for name in source.files(directory)}
    return {n: pipeline.store.memo.digest(pipeline.loaded.directory / n) for n in sorted(names)}


def _template(pipeline: Pipeline) -> dict[str, Digest]:
    """The template's own file; the base model's template is among the model's files."""
    wanted = pipeline.spec.prompt.template
    if not isinstance(wanted, str):
        return {wanted.file: pipeline.store.memo.digest(pipeline.loaded.directory / wanted.file)}
    if wanted == "base":
        return {}
    return {wanted: digest_bytes(resources.path("templates", "prompts", f"{wanted}.jinja").read_bytes())}


def _model(pipeline: Pipeline, *, keep: bool) -> RepositoryLock:
    locked = pipeline.lock.model if pipeline.lock and keep else None
    return locked_model(
        pipeline.spec.model,
        pipeline.loaded.directory,
        pipeline.hub_cache,
        pipeline.store.memo.digest,
        locked,
    )


def _datasets(pipeline: Pipeline, old: SpecLock | None, free: frozenset[str]) -> dict[str, RepositoryLock]:
    locked = {name: kept for name, kept in old.datasets.items() if name not in free} if old else {}
    return {
        name: wanted.lock(locked.get(name), pipeline.hub_cache)
        for name, wanted in wanted_datasets(pipeline.spec).items()
    }


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
