"""What building a spec asks of a machine, as ``doctor`` compares it with what the machine has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunebuild.errors import TunebuildError
from tunebuild.extras import MODULES, install_command, is_there
from tunebuild.image.oci.reference import ImageReference
from tunebuild.preflight.doctor.finding import Needs
from tunebuild.spec import LoadedSpec, Spec

if TYPE_CHECKING:
    from tunebuild.build.pipeline import Pipeline
    from tunebuild.store import Progress


def needs_of(
    loaded: LoadedSpec,
    opened: Callable[[], Pipeline],
    archive: Path,
    reporter: Callable[[str], Progress],
) -> Needs:
    """What a spec needs. Plans it, which reads its rows; fetches no model for that.

    Args:
        loaded: the spec.
        opened: makes its stages; not called where the packages for a plan are not installed.
        archive: what a build would write.
        reporter: shows progress of reading rows.
    """
    spec = loaded.spec
    needs = Needs(
        name=spec.name,
        extras=("train", *(("lm-eval",) if spec.evaluation.tasks else ())),
        quantized=spec.tuning.method in ("qlora", "auto"),
        method=spec.tuning.method,
        registry=_registry(spec),
        hub=tuple(dict.fromkeys(_hub(spec))),
    )
    if missing := [module for module in MODULES["plan"] if not is_there(module)]:
        why = f"planning needs {missing[0]}, which is not installed"
        return replace(needs, unplanned=why, advice=install_command(("plan",)))
    try:
        pipeline = opened()
    except TunebuildError as error:
        return _refused(needs, error)
    if not _is_here(pipeline):
        why = f"{spec.model.base} has not been downloaded yet"
        return replace(needs, unplanned=why, advice="run 'tunebuild plan', which fetches it")
    from tunebuild.build.plan.make import make_plan

    try:
        plan = make_plan(pipeline, archive, reporter)
    except TunebuildError as error:
        return _refused(needs, loaded.place(error))
    return replace(
        needs,
        method=plan.training.method,
        quantized=plan.training.method == "qlora",
        memory=(plan.memory.total, plan.memory.available),
        disk=(plan.disk.most, plan.disk.free, plan.disk.lacking),
    )


def _refused(needs: Needs, error: TunebuildError) -> Needs:
    first = error.diagnostics[0]
    why = " ".join(str(replace(first, hint="")).split())
    return replace(needs, unplanned=why, advice=first.hint or "see 'tunebuild plan'", refused=True)


def _registry(spec: Spec) -> tuple[str, str] | None:
    if not spec.image.repository:
        return None
    reference = ImageReference.parse(spec.reference)
    return (reference.registry, reference.path)


def _hub(spec: Spec) -> Iterator[tuple[str, str, str | None]]:
    if not (spec.model.is_local or spec.model.is_oci):
        yield ("model", spec.model.base, spec.model.token)
    for source in (*spec.data.train, *spec.data.eval.files):
        if source.hub is not None:
            yield ("dataset", source.hub, source.token)


def _is_here(pipeline: Pipeline) -> bool:
    """Whether the base's files are on this machine, as far as can be seen without asking for them."""
    model = pipeline.spec.model
    if model.is_local:
        return True
    folder = pipeline.hub_cache / f"models--{model.base.replace('/', '--')}" / "snapshots"
    return not model.is_oci and any(folder.glob("*/*.safetensors"))
