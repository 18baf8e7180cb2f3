"""Makes a plan. Reads and tokenises the rows, which the build then finds done; trains and fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from tunebuild.build.lock import find_drift
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.plan.disk import LAYERS, plan_disk, trained_bytes, weight_bytes
from tunebuild.build.plan.report import (
    Bin,
    Blast,
    Change,
    DataPlan,
    ImagePlanned,
    LayerPlan,
    MemoryPlan,
    Plan,
    ServingPlan,
    StagePlan,
    TrainingPlan,
)
from tunebuild.errors import TunebuildError
from tunebuild.evaluate.stage import closer_strategy
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.reading import open_archive
from tunebuild.image.runtime import runtime_layers
from tunebuild.report.facts import Records
from tunebuild.store import Progress, Stage, Tree
from tunebuild.train.plan.estimate import read_tensors
from tunebuild.train.plan.execution import TrainingPlan as Computed
from tunebuild.train.plan.execution import plan_training
from tunebuild.train.plan.lengths import read_lengths

_T = TypeVar("_T")

_APP_BYTES = 1 << 19  # the server, prompt and settings, where they are not laid out yet


def make_plan(
    pipeline: Pipeline,
    archive: Path,
    reporter: Callable[[str], Progress],
    *,
    against: Blast | None = None,
) -> Plan:
    """Find out what a build would do.

    Args:
        pipeline: the spec.
        archive: what the build would write; its layers count as already sent.
        reporter: shows progress of the data stage.
        against: the comparison to include.

    Raises:
        TunebuildError: what the build would refuse, too.
    """
    pipeline.check_tasks()
    pipeline.check_context()
    stages: list[StagePlan] = []
    data_stage = pipeline.data()
    stages.append(_look(pipeline, data_stage))
    data = pipeline.store.ensure(data_stage, reporter("data"))
    pipeline.check_rows(data)
    trained = _follow(pipeline, stages, lambda: pipeline.train(data), "train", data)
    merged = _follow(pipeline, stages, lambda: pipeline.merge(_known(trained)), "merge", trained)
    evaluated = _follow(
        pipeline,
        stages,
        lambda: pipeline.evaluate(data, _known(trained), _known(merged)),
        "evaluate",
        merged,
    )
    if evaluated and (closer := closer_strategy(evaluated)) != pipeline.strategies[0]:
        del stages[-2:]  # it measured the two merges, and the other one goes on
        merged = _follow(pipeline, stages, lambda: pipeline.merge(_known(trained), closer), "merge", trained)
        evaluated = _follow(
            pipeline,
            stages,
            lambda: pipeline.evaluate(data, _known(trained), _known(merged), closer),
            "evaluate",
            merged,
        )
    weights = _follow(pipeline, stages, lambda: pipeline.weights(_known(merged)), "weights", merged)
    runtime_stage = pipeline.runtime()
    stages.append(_look(pipeline, runtime_stage))
    runtime = pipeline.store.find(runtime_stage)
    finished = trained and merged and evaluated and weights and runtime
    image_stage = (
        pipeline.image(
            Records(data, _known(trained), _known(merged), _known(evaluated)),
            _known(weights),
            _known(runtime),
        )
        if finished
        else None
    )
    image = _follow(pipeline, stages, lambda: _known(image_stage), "image", runtime if finished else None)
    drift = find_drift(pipeline, pipeline.lock) if pipeline.lock else ()
    stats = json.loads(data.path("stats.json").read_text("utf-8"))
    lengths = read_lengths(data.path("train.arrow"))
    tensors = read_tensors(pipeline.base.directory)
    computed = plan_training(pipeline.base.config, tensors, pipeline.train_settings, lengths)
    planned = _image(pipeline, runtime, image_stage.image(image) if image_stage and image else None, archive)
    return Plan(
        spec=str(pipeline.loaded.file),
        name=pipeline.spec.name,
        work=any(stage.status != "unchanged" for stage in stages),
        stages=tuple(stages),
        data=_data(stats),
        training=_training(pipeline, computed, stats["rows"]["train"]),
        memory=_memory(computed),
        serving=ServingPlan(context=pipeline.context, positions=pipeline.positions),
        disk=plan_disk(pipeline, trained, merged, runtime, (archive, _to_write(planned, archive))),
        image=planned,
        lock="behind" if drift else "matches" if pipeline.lock else "none",
        drift=tuple(map(str, drift)),
        against=against,
    )


def _look(pipeline: Pipeline, stage: Stage) -> StagePlan:
    if pipeline.store.find(stage):
        return StagePlan(name=stage.name, status="unchanged")
    reason = pipeline.store.why(stage, pipeline.spec.name)
    why = Change(field=reason.field, old=reason.old, new=reason.new) if reason.field else None
    scratch = pipeline.store.scratch(stage)
    going = any(scratch.glob("checkpoints/checkpoint-*/sealed.json"))
    return StagePlan(name=stage.name, status="resume" if going else "run", why=why)


def _follow(
    pipeline: Pipeline, stages: list[StagePlan], make: Callable[[], Stage], name: str, before: Tree | None
) -> Tree | None:
    """Look at a stage if what it follows is known; its output, if that is known."""
    if before is None:
        waits = next(s.name for s in reversed(stages) if s.status != "unchanged")
        stages.append(StagePlan(name=name, status="run", after=waits))
        return None
    stage = make()
    stages.append(_look(pipeline, stage))
    return pipeline.store.find(stage)


def _known(value: _T | None) -> _T:
    assert value is not None
    return value


def _data(stats: dict[str, Any]) -> DataPlan:
    return DataPlan(
        train=stats["rows"]["train"],
        eval=stats["rows"]["eval"],
        rejected=stats["rejected"],
        tokens=stats["tokens"],
        supervised_share=stats["supervised_share"],
        histogram=tuple(Bin(**row) for row in stats["histogram"]),
    )


def _training(pipeline: Pipeline, computed: Computed, rows: int) -> TrainingPlan:
    settings = pipeline.train_settings
    tuning = settings.tuning
    return TrainingPlan(
        method=tuning.method,
        device=settings.device,
        compute_dtype=settings.compute_dtype,
        batch_size=tuning.batch_size,
        passes=computed.execution.passes,
        most_tokens=computed.execution.most_tokens,
        step_tokens=computed.step_tokens,
        epochs=tuning.epochs,
        steps=settings.steps(rows),
        reasons=computed.reasons,
    )


def _memory(computed: Computed) -> MemoryPlan:
    components = asdict(computed.memory)
    return MemoryPlan(components=components, total=sum(components.values()), available=computed.limit)


def _image(pipeline: Pipeline, runtime: Tree | None, built: Image | None, archive: Path) -> ImagePlanned:
    try:
        have = {layer.digest for layer in open_archive(archive).layers}
    except TunebuildError:
        have = set()
    layers: list[LayerPlan] = []
    if built is not None:
        layers += [_layer(x.name, x.size, x.digest in have) for x in built.layers]
    else:
        if runtime is not None:
            layers += [_layer(x.name, x.size, x.digest in have) for x in runtime_layers(runtime)]
        else:
            peft = ("peft",) if pipeline.keeps_adapter else ()
            layers += [_layer(name, None, False) for name in ("base", "torch", "packages", *peft)]
        layers.append(_layer("weights", weight_bytes(pipeline), False))
        if pipeline.keeps_adapter:
            layers.append(_layer("adapter", trained_bytes(pipeline), False))
        layers.append(_layer("app", _APP_BYTES, False))
    sizes = [layer.size for layer in layers if layer.status == "new"]
    return ImagePlanned(
        reference=pipeline.spec.reference,
        compared_with=str(archive) if have else None,
        layers=tuple(layers),
        send=None if None in sizes else sum(size or 0 for size in sizes),
    )


def _layer(name: str, size: int | None, reused: bool) -> LayerPlan:
    return LayerPlan(name=name, size=size, status="reused" if reused else "new")


def _to_write(planned: ImagePlanned, archive: Path) -> int:
    """Bytes of the archive, of which layers that are not built yet are estimated; 0 if it is up to date."""
    if planned.send == 0 and archive.is_file():
        return 0
    unknown = any(layer.size is None for layer in planned.layers)
    return sum(layer.size or 0 for layer in planned.layers) + (LAYERS if unknown else 0)
