"""What the verbs that need a finished build share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tunebuild.build.lock import find_drift, require_no_drift
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.run import Built, build
from tunebuild.cli._progress import Reporter
from tunebuild.errors import TunebuildError
from tunebuild.lock.spec_lock import lock_path, read_lock
from tunebuild.report.facts import Records
from tunebuild.spec import load_spec
from tunebuild.store import Store


def build_spec(
    spec: Path,
    store: Path,
    overrides: Sequence[str] = (),
    *,
    locked: bool = False,
    refused: Callable[[Pipeline, Records], None] | None = None,
) -> Built:
    """Validate and build a spec, showing progress; errors get their place in the spec.

    Args:
        spec: the spec; a lock beside it decides what is fetched.
        store: where stages are kept.
        overrides: ``PATH=VALUE`` texts.
        locked: refuse to build anything that the lock does not name.
        refused: told what was recorded where a gate refuses it.
    """
    with opened(spec, store, overrides, locked=locked) as (pipeline, reporter):
        return build(pipeline, reporter, refused)


@contextmanager
def opened(
    spec: Path, store: Path, overrides: Sequence[str] = (), *, locked: bool = False
) -> Iterator[tuple[Pipeline, Reporter]]:
    """A validated spec's stages, and what shows progress; see :func:`build_spec`."""
    loaded = load_spec(spec, overrides)
    path = lock_path(spec)
    lock = read_lock(path)
    pipeline = Pipeline(loaded, Store(store), lock)
    with Reporter() as reporter:
        for note in loaded.document.notes:
            reporter("spec").say(note)
        try:
            if locked:
                require_no_drift(pipeline, lock, path)
            elif lock and (moved := find_drift(pipeline, lock)):
                names = ", ".join(one.name for one in moved[:3]) + (", ..." if len(moved) > 3 else "")
                reporter("lock").say(f"{path} is behind ({names}); 'tunebuild lock' brings it up to date")
            yield pipeline, reporter
        except TunebuildError as error:
            raise loaded.place(error) from error
