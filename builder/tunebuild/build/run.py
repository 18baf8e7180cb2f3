"""Runs a spec's stages: what has not been run yet, the image's runtime beside the training."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from tunebuild.build.checks import check_base, check_rows, check_spec
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.walk import walk_to_gates, walk_to_image
from tunebuild.errors import TunebuildError, fail
from tunebuild.evaluate.metrics import check_gates
from tunebuild.evaluate.stage import read_metrics
from tunebuild.image.bundle import BundleParts
from tunebuild.image.oci.manifest import Image
from tunebuild.image.plan import ImagePlan
from tunebuild.image.runtime_process import prepare_runtime
from tunebuild.merge.stage import MergeStage
from tunebuild.preflight.environment import check_environment
from tunebuild.report.facts import Records
from tunebuild.spec.serving import DEFAULT_CONTEXT
from tunebuild.store import Progress, Stage, Tree

if TYPE_CHECKING:
    from tunebuild.train.launch.together import Together

#: Makes the progress of one stage from its name.
Reporter = Callable[[str], Progress]
#: Told what was recorded where a gate refuses it.
Refused = Callable[[Pipeline, Records], None]


@dataclass(frozen=True, slots=True)
class Built:
    """A finished build.

    Attributes:
        image: the image, ready to be written, loaded or pushed.
        plan: the same image for the Docker back end.
        parts: what its bundle is made of, for serving without a container.
        settings: the image stage's output, with ``bundle.json``.
        pipeline: the spec's stages.
        records: what the stages before the image wrote.
        runtime: the runtime stage's output.
        ran: names of the stages that were not found in the store.
    """

    image: Image
    plan: ImagePlan
    parts: BundleParts
    settings: Tree
    pipeline: Pipeline
    records: Records
    runtime: Tree
    ran: tuple[str, ...]


def build(pipeline: Pipeline, reporter: Reporter, refused: Refused | None = None) -> Built:
    """Run what has not been run yet.

    The image's runtime is prepared beside the training, which leaves the disk and the network idle.

    Args:
        pipeline: the spec's stages.
        reporter: makes each stage's progress.
        refused: told what was recorded where a gate refuses it, before that is raised.

    Raises:
        TunebuildError: what a stage cannot do, with positions in the spec; or several nodes must train.
    """
    running = _Running(pipeline, reporter)

    def prepare() -> Tree:
        running.ran.append("runtime")
        return prepare_runtime(
            pipeline.wanted_runtime,
            pipeline.locked_runtime,
            store.root,
            reporter("runtime"),
        )

    _check_early(pipeline, reporter)
    running.base()
    store = pipeline.store
    if pipeline.spec.serving.limits.context is None and pipeline.context < DEFAULT_CONTEXT:
        reporter("spec").say(f"serving.limits.context is {pipeline.context}: the base has no more positions")
    with ThreadPoolExecutor(1) as beside:
        data = running.rows()
        found = store.find(pipeline.runtime())
        preparing = None if found else beside.submit(prepare)
        records = running.measured(data, refused)

        @cache
        def runtime() -> Tree:
            prepared = preparing.result() if preparing else running.ensure(pipeline.runtime())
            store.note_use(pipeline.runtime(), pipeline.spec.name)
            return prepared

        stage, output = walk_to_image(pipeline, running.ensure, records, runtime)
    return Built(
        stage.image(output),
        stage.plan(output.root),
        stage.parts,
        output,
        pipeline,
        records,
        runtime(),
        tuple(running.ran),
    )


def measured(pipeline: Pipeline, reporter: Reporter) -> Records:
    """Run what has not been run yet of a build up to its gates: no weights' layers, no runtime, no image.

    Args, Raises: as :func:`build`.
    """
    _check_early(pipeline, reporter)
    running = _Running(pipeline, reporter)
    running.base()
    return running.measured(running.rows())


def ensure(pipeline: Pipeline, reporter: Reporter, stage: Stage, ran: list[str] | None = None) -> Tree:
    """A stage's output, found or made.

    Args:
        pipeline: of the stage.
        reporter: makes its progress.
        stage: the stage.
        ran: gets its name if it was not found.
    """
    store, progress = pipeline.store, reporter(stage.name)
    if found := store.find(stage):
        progress.say("unchanged")
    else:
        if ran is not None:
            ran.append(stage.name)
        found = store.ensure(stage, progress)
    store.note_use(stage, pipeline.spec.name)
    return found


@dataclass(frozen=True, slots=True)
class _Running:
    """A build's stages as they run, and the names of those that were not found in the store."""

    pipeline: Pipeline
    reporter: Reporter
    ran: list[str] = field(default_factory=list)

    def ensure(self, stage: Stage) -> Tree:
        """A stage's output, found or made."""
        return ensure(self.pipeline, self.reporter, stage, self.ran)

    def base(self) -> None:
        """Write the base with the spec's new control tokens, if it has some."""
        if stage := self.pipeline.bases.stage:
            self.ensure(stage)

    def rows(self) -> Tree:
        """The data stage's output, for a training that may begin."""
        pipeline = self.pipeline
        data = self.ensure(pipeline.data())
        check_rows(pipeline, data)
        if (nodes := pipeline.spec.tuning.nodes) > 1 and not pipeline.store.find(pipeline.train(data)):
            text = f"what {nodes} nodes train has to be started on each of them, and is not in the store yet"
            hint = "'tunebuild launch SPEC' renders what starts it, for torchrun, Slurm or Kubernetes"
            raise fail("not-trained", text, hint, path="tuning.nodes")
        return data

    def measured(self, data: Tree, refused: Refused | None = None) -> Records:
        """What training, merge and evaluation wrote, once the gates have let it pass."""
        pipeline = self.pipeline

        def step(stage: Stage) -> Tree:
            if isinstance(stage, MergeStage) and stage.strategy != pipeline.strategies[0]:
                self.reporter("merge").say(f"{stage.strategy} is closer to the trained model")
            return self.ensure(stage)

        records = walk_to_gates(pipeline, step, data)
        try:
            check_gates(pipeline.spec.gates, read_metrics(records.evaluate))
        except TunebuildError:
            if refused:
                try:
                    refused(pipeline, records)
                except Exception as error:  # noqa: BLE001 - whatever it is, the build ends with the gate's word
                    self.reporter("report").say(f"not written: {type(error).__name__}: {error}")
            raise
        return records


def train(pipeline: Pipeline, reporter: Reporter, together: Together) -> None:
    """Run what has not been run yet of a build's first two stages, the training with other processes.

    Raises:
        TunebuildError: what a stage cannot do.
    """
    store = pipeline.store
    _check_early(pipeline, reporter)
    _Running(pipeline, reporter).base()
    preparing = pipeline.data()
    data = store.ensure(preparing, reporter("data"))
    check_rows(pipeline, data)
    training = pipeline.train(data, together=together)
    store.ensure(training, reporter("train"))
    for stage in (preparing, training):
        store.note_use(stage, pipeline.spec.name)


def _check_early(pipeline: Pipeline, reporter: Reporter) -> None:
    """Refuse what can be known to fail before hours of training."""
    try:
        check_environment(pipeline.spec)
    except TunebuildError:
        if not _is_trained(pipeline):
            raise
    check_spec(pipeline)
    _ = pipeline.strategies
    if not _is_trained(pipeline):  # what was trained has passed, and costs no import of transformers
        check_base(pipeline, reporter)


def _is_trained(pipeline: Pipeline) -> bool:
    """Whether the training is done already. Fetches no base for a name that nothing was trained for."""
    store = pipeline.store
    if not store.has_used("train", pipeline.spec.name):
        return False
    data = store.find(pipeline.data())
    return data is not None and store.find(pipeline.train(data)) is not None
