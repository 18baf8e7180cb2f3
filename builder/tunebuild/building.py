"""Runs a spec's stages: what has not been run yet, the image's runtime beside the training."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunebuild.errors import TunebuildError, fail
from tunebuild.evaluate.metrics import check_gates
from tunebuild.evaluate.stage import closer_strategy, read_metrics
from tunebuild.fitting import check_context, check_rows
from tunebuild.image.bundle import BundleParts
from tunebuild.image.oci import Image
from tunebuild.image.plan import ImagePlan
from tunebuild.image.runtime_process import prepare_runtime
from tunebuild.pipeline import Pipeline
from tunebuild.report.facts import Records
from tunebuild.spec.serving import DEFAULT_CONTEXT
from tunebuild.store import Progress, Stage, Tree

if TYPE_CHECKING:
    from tunebuild.train.together import Together

#: Makes the progress of one stage from its name.
Reporter = Callable[[str], Progress]


@dataclass(frozen=True, slots=True)
class Built:
    """A finished build.

    Attributes:
        image: the image, ready to be written, loaded or pushed.
        plan: the same image for the Docker back end.
        parts: what its bundle is made of, for serving without a container.
        settings: the image stage's output, with ``bundle.json``.
        ran: names of the stages that were not found in the store.
    """

    image: Image
    plan: ImagePlan
    parts: BundleParts
    settings: Tree
    ran: tuple[str, ...]


def build(
    pipeline: Pipeline, reporter: Reporter, refused: Callable[[Pipeline, Records], None] | None = None
) -> Built:
    """Run what has not been run yet.

    The image's runtime is prepared beside the training, which leaves the disk and the network idle.

    Args:
        pipeline: the spec's stages.
        reporter: makes each stage's progress.
        refused: told what was recorded where a gate refuses it, before that is raised.

    Raises:
        TunebuildError: what a stage cannot do, with positions in the spec; or several nodes must train.
    """
    ran: list[str] = []

    def ensure(stage: Stage) -> Tree:
        progress = reporter(stage.name)
        if found := store.find(stage):
            progress.say("unchanged")
        else:
            ran.append(stage.name)
            found = store.ensure(stage, progress)
        store.note_use(stage, pipeline.spec.name)
        return found

    def prepare() -> Tree:
        ran.append("runtime")
        return prepare_runtime(
            pipeline.spec.image,
            pipeline.requirements,
            pipeline.locked_runtime,
            store.root,
            reporter("runtime"),
        )

    _check_early(pipeline)
    store = pipeline.store
    if pipeline.spec.serving.limits.context is None and pipeline.context < DEFAULT_CONTEXT:
        reporter("spec").say(f"serving.limits.context is {pipeline.context}: the base has no more positions")
    with ThreadPoolExecutor(1) as beside:
        data = ensure(pipeline.data())
        check_rows(pipeline, data)
        if (nodes := pipeline.spec.tuning.nodes) > 1 and not store.find(pipeline.train(data)):
            text = f"what {nodes} nodes train has to be started on each of them, and is not in the store yet"
            hint = "'tunebuild launch SPEC' renders what starts it, for torchrun, Slurm or Kubernetes"
            raise fail("not-trained", text, hint, path="tuning.nodes")
        found = store.find(pipeline.runtime())
        preparing = None if found else beside.submit(prepare)
        trained = ensure(pipeline.train(data, spared_cores=1 if preparing else 0))
        merged = ensure(pipeline.merge(trained))
        evaluated = ensure(pipeline.evaluate(data, trained, merged))
        if (closer := closer_strategy(evaluated)) != pipeline.strategies[0]:
            reporter("merge").say(f"{closer} is closer to the trained model")
            merged = ensure(pipeline.merge(trained, closer))
            evaluated = ensure(pipeline.evaluate(data, trained, merged, closer))
        records = Records(data, trained, merged, evaluated)
        try:
            check_gates(pipeline.spec.gates, read_metrics(evaluated))
        except TunebuildError:
            if refused:
                refused(pipeline, records)
            raise
        weights = ensure(pipeline.weights(merged))
        runtime = preparing.result() if preparing else ensure(pipeline.runtime())
        store.note_use(pipeline.runtime(), pipeline.spec.name)
        stage = pipeline.image(records, weights, runtime)
    output = ensure(stage)
    return Built(stage.image(output), stage.plan(output.root), stage.parts, output, tuple(ran))


def train(pipeline: Pipeline, reporter: Reporter, together: Together) -> None:
    """Run what has not been run yet of a build's first two stages, the training with other processes.

    Raises:
        TunebuildError: what a stage cannot do.
    """
    store = pipeline.store
    _check_early(pipeline)
    preparing = pipeline.data()
    data = store.ensure(preparing, reporter("data"))
    check_rows(pipeline, data)
    training = pipeline.train(data, together=together)
    store.ensure(training, reporter("train"))
    for stage in (preparing, training):
        store.note_use(stage, pipeline.spec.name)


def _check_early(pipeline: Pipeline) -> None:
    """Refuse what can be known to fail before hours of training."""
    pipeline.check_tasks()
    check_context(pipeline)
    _ = pipeline.strategies
