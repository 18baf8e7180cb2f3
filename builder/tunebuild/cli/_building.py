"""What the verbs that need a finished build share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tunebuild.build.lock import find_drift, require_no_drift
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.run import Built, build
from tunebuild.cli._pipeline import pipeline_of, placed
from tunebuild.cli._progress import Reporter
from tunebuild.lock.find import find_lock
from tunebuild.report.facts import Records


def build_spec(
    spec: Path,
    store: Path,
    overrides: Sequence[str] = (),
    *,
    lock_file: Path | None = None,
    locked: bool = False,
    refused: Callable[[Pipeline, Records], None] | None = None,
) -> Built:
    """Validate and build a spec, showing progress; errors get their place in the spec.

    Args:
        spec: the spec; its lock decides what is fetched.
        store: where stages are kept.
        overrides: ``PATH=VALUE`` texts.
        lock_file: the lock; found beside the spec or its bases if left out.
        locked: refuse to build anything that the lock does not name.
        refused: told what was recorded where a gate refuses it.
    """
    with opened(spec, store, overrides, lock_file, locked=locked) as (pipeline, reporter):
        return build(pipeline, reporter, refused)


@contextmanager
def opened(
    spec: Path,
    store: Path,
    overrides: Sequence[str] = (),
    lock_file: Path | None = None,
    *,
    locked: bool = False,
) -> Iterator[tuple[Pipeline, Reporter]]:
    """A validated spec's stages, and what shows progress; see :func:`build_spec`."""
    pipeline = pipeline_of(spec, store, overrides, lock_file=lock_file)
    found = find_lock(pipeline.loaded, lock_file)
    with Reporter() as reporter:
        for note in pipeline.loaded.document.notes:
            reporter("spec").say(note)
        with placed(pipeline):
            if locked:
                require_no_drift(pipeline, found)
            elif found.lock and (moved := find_drift(pipeline, found.lock)):
                names = ", ".join(one.name for one in moved[:3]) + (", ..." if len(moved) > 3 else "")
                say = f"{found.path} is behind ({names}); 'tunebuild lock' brings it up to date"
                reporter("lock").say(say)
            yield pipeline, reporter
