"""Makes a plan. Reads and tokenizes the rows, which the build then finds done; trains and fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunebuild.build.checks import check_base, check_spec
from tunebuild.build.lock import find_drift
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.plan.disk import layer_bytes, plan_disk, trained_bytes, weight_bytes
from tunebuild.build.plan.look import Look
from tunebuild.build.plan.report import (
    Bin,
    Blast,
    DataPlan,
    ImagePlanned,
    LayerPlan,
    MemoryPlan,
    OutputPlan,
    Plan,
    ServingPlan,
    TrainingPlan,
)
from tunebuild.data.view import unshown
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.reading import open_archive
from tunebuild.image.runtime import runtime_cuda, runtime_layers
from tunebuild.serve.drivers import needed_driver
from tunebuild.spec.serving_rules import engine_reason
from tunebuild.store import Progress, Tree
from tunebuild.train.plan.execution import ComputePlan, plan_training
from tunebuild.train.plan.lengths import read_lengths
from tunebuild.train.plan.shapes import read_tensors

_MANIFEST_BYTES = 4096  # manifest and config
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
    check_spec(pipeline)
    look = Look(pipeline)
    data = look.rows(reporter("data"))
    image = look.to_image(data)
    if look.stages["train"].status != "unchanged":
        check_base(pipeline, reporter)
    drift = find_drift(pipeline, pipeline.lock) if pipeline.lock else ()
    stats = json.loads(data.path("stats.json").read_text("utf-8"))
    lengths = read_lengths(data.path("train.arrow"))
    tensors = read_tensors(pipeline.base.directory)
    computed = plan_training(pipeline.base.config, tensors, pipeline.train_settings, lengths)
    outputs = look.outputs
    planned = _image(pipeline, outputs.get("runtime"), image, archive)
    return Plan(
        spec=str(pipeline.loaded.file),
        name=pipeline.spec.name,
        work=any(stage.status != "unchanged" for stage in look.stages.values()),
        stages=tuple(look.stages.values()),
        data=_data(pipeline, stats),
        training=_training(pipeline, computed, stats["rows"]["train"]),
        memory=_memory(computed),
        serving=ServingPlan(
            engine=pipeline.engine,
            device=pipeline.spec.serving.device,
            reason=engine_reason(pipeline.spec),
            context=pipeline.context,
            positions=pipeline.positions,
            no_tools=pipeline.renderer.no_calls,
        ),
        disk=plan_disk(pipeline, outputs, (archive, _to_write(pipeline, planned, archive))),
        image=planned,
        outputs=tuple(_outputs(pipeline)),
        lock="behind" if drift else "matches" if pipeline.lock else "none",
        drift=tuple(map(str, drift)),
        against=against,
    )


def _data(pipeline: Pipeline, stats: dict[str, Any]) -> DataPlan:
    return DataPlan(
        train=stats["rows"]["train"],
        eval=stats["rows"]["eval"],
        rejected=stats["rejected"],
        unshown=unshown(stats, [source.shown for source in pipeline.data().sources]),
        tokens=stats["tokens"],
        supervised_share=stats["supervised_share"],
        histogram=tuple(Bin(**row) for row in stats["histogram"]),
    )


def _training(pipeline: Pipeline, computed: ComputePlan, rows: int) -> TrainingPlan:
    settings = pipeline.train_settings
    tuning = settings.tuning
    return TrainingPlan(
        method=tuning.method,
        device=settings.device,
        compute_dtype=settings.compute_dtype,
        batch_size=tuning.batch_size,
        micro_batches=computed.execution.micro_batches,
        max_tokens=computed.execution.max_tokens,
        step_tokens=computed.step_tokens,
        epochs=tuning.epochs,
        steps=settings.steps(rows),
        reasons=computed.reasons,
    )


def _memory(computed: ComputePlan) -> MemoryPlan:
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
            more = ("vllm",) if pipeline.engine == "vllm" else ("peft",) if pipeline.keeps_adapter else ()
            layers += [_layer(name, None, False) for name in ("base", "torch", "packages", *more)]
        layers.append(_layer("weights", weight_bytes(pipeline), False))
        if pipeline.keeps_adapter:
            layers.append(_layer("adapter", trained_bytes(pipeline), False))
        layers.append(_layer("app", _APP_BYTES, False))
    sizes = [layer.size for layer in layers if layer.status == "new"]
    unknown = any(layer.size is None for layer in layers)
    device = pipeline.spec.serving.device
    cuda = None if runtime is None else runtime_cuda(runtime)
    # Before they are fetched: what the versions that tunebuild ships are built for.
    needs = cuda or ("13.0" if device == "cuda" else "")
    return ImagePlanned(
        reference=pipeline.spec.reference,
        compared_with=str(archive) if have else None,
        layers=tuple(layers),
        platform=pipeline.spec.image.platform,
        cuda=cuda,
        driver=needed_driver(needs) if device == "cuda" else None,
        size=sum(layer.size or 0 for layer in layers) + (layer_bytes(pipeline) if unknown else 0),
        estimated=unknown,
        send=None if None in sizes else sum(size or 0 for size in sizes),
    )


def _outputs(pipeline: Pipeline) -> Iterator[OutputPlan]:
    adds = {
        "weights": 0,
        "adapter": 0 if pipeline.keeps_adapter else trained_bytes(pipeline),
        "modelpack": weight_bytes(pipeline),
    }
    for output in pipeline.spec.outputs:
        if output != "image":
            reference = f"{pipeline.spec.reference}-{output}"
            yield OutputPlan(name=output, reference=reference, adds=adds[output] + _MANIFEST_BYTES)


def _layer(name: str, size: int | None, reused: bool) -> LayerPlan:
    return LayerPlan(name=name, size=size, status="reused" if reused else "new")


def _to_write(pipeline: Pipeline, planned: ImagePlanned, archive: Path) -> int:
    """Bytes of the archive, of which layers that are not built yet are estimated; 0 if it is up to date."""
    if planned.send == 0 and archive.is_file():
        return 0
    unknown = any(layer.size is None for layer in planned.layers)
    return sum(layer.size or 0 for layer in planned.layers) + (layer_bytes(pipeline) if unknown else 0)
