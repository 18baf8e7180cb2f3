"""What each stage of a spec depends on besides earlier stages, before anything ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunebuild.build.description import labels_of
from tunebuild.image.bundle import BundleParts
from tunebuild.image.stage import ImageStage
from tunebuild.report.facts import Records
from tunebuild.store import UNBUILT

if TYPE_CHECKING:
    from tunebuild.build.pipeline import Pipeline


def own_inputs(pipeline: Pipeline) -> dict[str, Any]:
    """Each stage's own inputs, by its name. Runs nothing.

    Two builds are compared by these: a field of the spec matters to the stages in whose inputs it shows.
    """
    merge = dict(pipeline.merge(UNBUILT).own())
    if len(pipeline.strategies) > 1:
        # Which one is kept is measured; the candidates are among what is evaluated.
        del merge["strategy"]
    labels = labels_of(pipeline.spec, pipeline.settings)
    parts, records = BundleParts(pipeline.settings, *[UNBUILT] * 5), Records(*[UNBUILT] * 4)
    image = ImageStage(pipeline.reference, parts, (), {}, records, labels, {}, pipeline.spec.image.platform)
    own: dict[str, Any] = {
        "data": pipeline.data().own(),
        "train": pipeline.train(UNBUILT).own(),
        "merge": merge,
        "evaluate": {
            "gates": pipeline.spec.gates.model_dump(mode="json"),
            **pipeline.evaluate(UNBUILT, UNBUILT, UNBUILT).own(),
        },
        "runtime": pipeline.runtime().own(),
        "image": image.own(),
    }
    if pipeline.spec.exports:
        own["export"] = {"exports": [one.model_dump(mode="json") for one in pipeline.spec.exports]}
    return own
