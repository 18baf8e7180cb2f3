"""What is to be checked of a written checkpoint: one job for each tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.merge.proof._check import Finding, check_held, check_kept, check_rows, check_whole
from tunebuild.merge.proof._files import Slab, slabs
from tunebuild.merge.proof._names import Place, places
from tunebuild.merge.proof._nf4 import FourBit
from tunebuild.merge.proof._peft import AdapterTold, Low, Module, skeleton_of, tell
from tunebuild.merge.proof._updated import Updated
from tunebuild.merge.strategies import Strategy

AGAIN = (
    "the files are not the trained model, and no image was made: 'tunebuild cache verify --remove' forgets "
    "what was damaged on disk, then build again; if the same is said again, please report it"
)


@dataclass(frozen=True, slots=True)
class Job:
    """The check of one tensor.

    Attributes:
        kind: what it has to be: ``updated``, ``rows``, ``whole``, ``held`` or ``kept``.
        module: the model's parameter that it belongs to.
        merged: the written tensor.
        run: the check.
    """

    kind: str
    module: str
    merged: Slab
    run: Callable[[], Finding]


def jobs_for(
    strategy: Strategy,
    base: Path,
    trained: Path,
    stored: Mapping[str, Slab],
    written: Mapping[str, Slab],
) -> tuple[list[Job], int]:
    """What is to be checked, and how many tensors training left.

    Raises:
        TunebuildError: ``proof-failed``: a tensor is missing, or what was trained has no place.
    """
    if missing := sorted(stored.keys() ^ written.keys()):
        which = "lack" if missing[0] in stored else "have, and the base has not,"
        raise fail("proof-failed", f"the merged files {which} {missing[0]}", AGAIN)
    if strategy == "none":
        return [Job("kept", n, written[n], partial(check_kept, stored[n], written[n])) for n in stored], 0
    if strategy == "trained":
        return _whole_jobs(slabs(trained / "model"), written)
    model = skeleton_of(base)
    where = places(model, stored)
    ties = _ties(model)
    told = tell(model, trained / "adapter")
    four = FourBit.read(trained / "quantization.json") if strategy == "dequantized" else None
    jobs = list(_adapter_jobs(told, four, where, ties, stored, written))
    touched = {job.module for job in jobs if job.kind in ("updated", "rows", "whole")}
    for parameter in (*told.modules, *told.whole, *told.rows):
        if not touched & ties.get(parameter, {parameter}):
            raise fail("proof-failed", f"no stored tensor belongs to {parameter}, which was trained", AGAIN)
    if four:
        held = {job.module for job in jobs if job.kind == "held"} | touched
        for module in four.modules:
            if f"{module}.weight" not in held:
                raise fail("proof-failed", f"no stored tensor belongs to {module}, held in 4 bits", AGAIN)
    return jobs, told.count


def _whole_jobs(trained: Mapping[str, Slab], written: Mapping[str, Slab]) -> tuple[list[Job], int]:
    if missing := sorted(trained.keys() ^ written.keys()):
        raise fail("proof-failed", f"{missing[0]} is in only one of trained and written model", AGAIN)
    jobs = [Job("whole", n, written[n], partial(check_whole, trained[n], written[n])) for n in written]
    return jobs, len(trained)


def _ties(model: Any) -> dict[str, set[str]]:
    """The names of each parameter that has several."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {name: same for same in names.values() if len(same) > 1 for name in same}


def _adapter_jobs(
    told: AdapterTold,
    four: FourBit | None,
    where: Mapping[str, Place],
    ties: Mapping[str, set[str]],
    stored: Mapping[str, Slab],
    written: Mapping[str, Slab],
) -> Iterator[Job]:
    experts: dict[str, list[Low]] = {}
    for name, before in stored.items():
        after, place = written[name], where[name]
        parameter = place.parameter
        names = ties.get(parameter, {parameter})
        in_4_bits = four if four and parameter.removesuffix(".weight") in four.modules else None
        whole = [told.whole[n] for n in sorted(names) if n in told.whole]
        modules = [told.modules[n] for n in sorted(names) if n in told.modules]
        rows = [told.rows[n] for n in sorted(names) if n in told.rows]
        if (
            rows
            and not whole
            and not modules
            and place.plain
            and len(rows) == len(names) == len([one for one in rows if one == rows[0]])
        ):
            yield Job("rows", parameter, after, partial(check_rows, *rows[0], before, after))
        elif rows:
            raise fail("proof-failed", f"{parameter} is trained in two ways, or rearranged on loading", AGAIN)
        elif whole and not modules:
            for one in whole:
                yield Job("whole", parameter, after, partial(check_whole, one, after))
        elif modules and not whole and len(modules) == len(names):
            if not place.plain:
                raise fail("proof-failed", f"{name} is rearranged on loading; its update cannot be proven")
            for module in modules:  # what is tied is each side's own base and update
                yield from _update_jobs(module, place, before, after, in_4_bits, experts)
        elif modules:
            raise fail("proof-failed", f"{parameter} is tied, and trained in two ways", AGAIN)
        elif in_4_bits:
            yield Job("held", parameter, after, partial(check_held, before, after, in_4_bits))
        else:
            yield Job("kept", parameter, after, partial(check_kept, before, after))


def _update_jobs(
    module: Module,
    place: Place,
    before: Slab,
    after: Slab,
    four: FourBit | None,
    experts: dict[str, list[Low]],
) -> Iterator[Job]:
    name = module.parameter
    if module.kind != "experts":

        def check() -> Finding:
            return Updated(before, after, module.low(), module, four).check()

        yield Job("updated", name, after, check)
        return
    if name not in experts:
        experts[name] = module.low_of_experts()
    stacked = place.expert is None and len(before.shape) == 3  # all experts in one stored tensor
    for number in range(len(experts[name])) if stacked else [place.expert or 0]:
        one, other = (_part(before, number), _part(after, number)) if stacked else (before, after)
        low = experts[name][number]
        low = replace(low, left=low.left[place.first : place.first + other.rows])
        yield Job("updated", name, after, Updated(one, other, low, None, four).check)


def _part(slab: Slab, number: int) -> Slab:
    size = slab.size // slab.shape[0]
    return replace(slab, shape=slab.shape[1:], start=slab.start + number * size, size=size)
