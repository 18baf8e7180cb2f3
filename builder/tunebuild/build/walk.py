"""The order of a build's stages, written once: a build runs each in turn, a plan looks if it is there."""

from __future__ import annotations

from collections.abc import Callable

from tunebuild.build.pipeline import Pipeline
from tunebuild.evaluate.stage import closer_strategy
from tunebuild.image.stage import ImageStage
from tunebuild.report.facts import Records
from tunebuild.store import Stage, Tree

#: Gives a stage's output: runs the stage, or finds it done and raises where it is not.
Step = Callable[[Stage], Tree]


def walk_to_gates(pipeline: Pipeline, step: Step, data: Tree) -> Records:
    """Training, merge and evaluation, from prepared rows to what the gates are asked about.

    Where the evaluation finds the other merge strategy closer to the trained model, that one is merged and
    measured in its turn.

    Args:
        pipeline: the spec's stages.
        step: gives each stage's output.
        data: the data stage's output.
    """
    trained = step(pipeline.train(data))
    merged = step(pipeline.merge(trained))
    evaluated = step(pipeline.evaluate(data, trained, merged))
    if (closer := closer_strategy(evaluated)) != pipeline.strategies[0]:
        merged = step(pipeline.merge(trained, closer))
        evaluated = step(pipeline.evaluate(data, trained, merged, closer))
    return Records(data, trained, merged, evaluated)


def walk_to_image(
    pipeline: Pipeline, step: Step, records: Records, runtime: Callable[[], Tree]
) -> tuple[ImageStage, Tree]:
    """Weights, chat template and image.

    Args:
        pipeline: the spec's stages.
        step: gives each stage's output.
        records: what the stages before wrote.
        runtime: gives the runtime stage's output, which depends on no other stage and may be under way.

    Returns:
        The image stage and its output.
    """
    weights = step(pipeline.weights(records.merge))
    chat = step(pipeline.chat(records))
    stage = pipeline.image(records, weights, runtime(), chat)
    return stage, step(stage)
