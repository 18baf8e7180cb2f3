"""What a build and a plan refuse early: each check of ``preflight`` with what it needs of a spec's stages."""

from __future__ import annotations

from collections.abc import Callable

from tunebuild.build.pipeline import Pipeline
from tunebuild.evaluate.tasks import require_tasks
from tunebuild.extras import is_there
from tunebuild.preflight import context
from tunebuild.preflight.architecture import check_files
from tunebuild.preflight.finite import FiniteStage
from tunebuild.preflight.stage import LIBRARIES, ArchitectureStage
from tunebuild.store import Progress, Silent, Tree


def check_spec(pipeline: Pipeline) -> None:
    """Refuse what only a stage after the training would miss, or a context longer than the base's positions.

    Raises:
        TunebuildError: a task cannot be done, or ``positions``.
    """
    require_tasks(pipeline.tasks)
    context.check_context(pipeline.positions, pipeline.context)


def check_rows(pipeline: Pipeline, data: Tree) -> None:
    """Refuse rows that the base has no positions for.

    Raises:
        TunebuildError: ``positions``, with the longest row.
    """
    sources = [source.shown for source in pipeline.data().sources]
    context.check_rows(pipeline.positions, pipeline.spec.tuning.max_length, data, sources)


def check_base(pipeline: Pipeline, reporter: Callable[[str], Progress]) -> None:
    """Refuse a base that a stage behind the training could not work with.

    What passed is remembered. A plan works where nothing can be trained, so a check that needs the
    libraries of training is left to the build there.

    Raises:
        TunebuildError: with the way out.
    """
    store = pipeline.store
    check_files(pipeline.base.directory)
    # As it is published: rows for new tokens are means of its own.
    store.ensure(FiniteStage(pipeline.published), reporter("numbers"))
    if missing := [name for name in LIBRARIES if not is_there(name)]:
        text = f"not checked, since {missing[0]} is not installed here; the build checks it"
        reporter("architecture").say(text)
        return
    tuning, merges = pipeline.train_settings.tuning, not pipeline.keeps_adapter
    store.ensure(
        ArchitectureStage(pipeline.base, tuning, merges, pipeline.engine, pipeline.train_settings.new_tokens),
        Silent(),
    )
