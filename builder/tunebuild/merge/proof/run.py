"""Proves a written checkpoint, tensor by tensor."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tunebuild.errors import Diagnostic, TunebuildError, fail
from tunebuild.merge.proof._check import Finding, Updated, check_held, check_kept, check_rows, check_whole
from tunebuild.merge.proof._files import Slab, slabs
from tunebuild.merge.proof._names import Place, places
from tunebuild.merge.proof._nf4 import FourBit
from tunebuild.merge.proof._peft import AdapterTold, Low, Module, skeleton_of, tell
from tunebuild.merge.strategies import Strategy
from tunebuild.store import Progress

_CONFIGS = ("config.json", "generation_config.json")
_MOST_THREADS = 8
_NAMED = 12  # modules in an error
_AGAIN = (
    "the files are not the trained model, and no image was made: 'tunebuild cache verify --remove' forgets "
    "what was damaged on disk, then build again; if the same is said again, please report it"
)


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proven.

    Attributes:
        strategy: how the files were made.
        updated: tensors with an update, each checked value by value and by what PEFT's layer adds.
        rows: tensors of which some rows were trained, and are as trained; the others are the base's.
        whole: tensors that were trained whole, equal to what was trained in the type of the file.
        held: tensors equal to the base as 4 bits hold it.
        kept: tensors equal to the base's, byte by byte.
        adapter_tensors: tensors of the adapter, each used once.
        worst: the updated tensor whose values are farthest from what they should be.
        worst_share: how far, as a share of what rounding allows.
        probe: the tensor whose answers to random inputs are farthest from PEFT's.
        probe_share: as ``worst_share``.
        lost: the tensor of which rounding took the largest share of its update.
        lost_share: that share.
    """

    strategy: Strategy
    updated: int
    rows: int
    whole: int
    held: int
    kept: int
    adapter_tensors: int
    worst: str
    worst_share: float
    probe: str
    probe_share: float
    lost: str
    lost_share: float

    @property
    def sentence(self) -> str:
        """The proof in one line."""
        parts = (
            (self.updated, "updated within rounding"),
            (self.rows, "with rows as trained"),
            (self.whole, "as trained"),
            (self.held, "as 4 bits hold them"),
            (self.kept, "equal to the base"),
        )
        told = ", ".join(f"{number} {what}" for number, what in parts if number)
        share = (
            f"; farthest {self.worst}, at {self.worst_share:.3g} of what rounding allows"
            if self.worst
            else ""
        )
        return f"tensors proven: {told}{share}"

    def to_json(self) -> dict[str, Any]:
        """For ``proof.json``."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class _Job:
    kind: str
    module: str
    merged: Slab
    run: Callable[[], Finding]


def prove(strategy: Strategy, *, base: Path, trained: Path, merged: Path, progress: Progress) -> Proof:
    """Prove that merged files are the trained model.

    Each tensor is what it has to be: base plus update within the rounding of its type, the tensor that was
    trained whole, the base as 4 bits hold it, or the base byte by byte. What the adapter does is PEFT's
    word, and each of its tensors is used once.

    Args:
        strategy: how the files were made.
        base: directory of the published weights.
        trained: the train stage's output.
        merged: directory of the written checkpoint.
        progress: told the bytes done.

    Raises:
        TunebuildError: ``proof-failed``, one diagnostic for each tensor that is not what it has to be.
    """
    stored, written = slabs(base), slabs(merged)
    _check_configs(base, merged)
    with torch.no_grad():
        jobs, tensors = _jobs(strategy, base, trained, stored, written)
        findings = _run(jobs, progress)
    _refuse(findings, progress)
    return _proof(strategy, findings, tensors)


def _jobs(
    strategy: Strategy,
    base: Path,
    trained: Path,
    stored: Mapping[str, Slab],
    written: Mapping[str, Slab],
) -> tuple[list[_Job], int]:
    """What is to be checked, and how many tensors training left."""
    if missing := sorted(stored.keys() ^ written.keys()):
        which = "lack" if missing[0] in stored else "have, and the base has not,"
        raise fail("proof-failed", f"the merged files {which} {missing[0]}", _AGAIN)
    if strategy == "none":
        return [_job("kept", n, written[n], partial(check_kept, stored[n], written[n])) for n in stored], 0
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
            raise fail("proof-failed", f"no stored tensor belongs to {parameter}, which was trained", _AGAIN)
    if four:
        held = {job.module for job in jobs if job.kind == "held"} | touched
        for module in four.modules:
            if f"{module}.weight" not in held:
                raise fail("proof-failed", f"no stored tensor belongs to {module}, held in 4 bits", _AGAIN)
    return jobs, told.count


def _whole_jobs(trained: Mapping[str, Slab], written: Mapping[str, Slab]) -> tuple[list[_Job], int]:
    if missing := sorted(trained.keys() ^ written.keys()):
        raise fail("proof-failed", f"{missing[0]} is in only one of trained and written model", _AGAIN)
    jobs = [_job("whole", n, written[n], partial(check_whole, trained[n], written[n])) for n in written]
    return jobs, len(trained)


def _job(kind: str, module: str, merged: Slab, run: Callable[[], Finding]) -> _Job:
    return _Job(kind, module, merged, run)


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
) -> Iterator[_Job]:
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
            yield _job("rows", parameter, after, partial(check_rows, *rows[0], before, after))
        elif rows:
            raise fail(
                "proof-failed", f"{parameter} is trained in two ways, or rearranged on loading", _AGAIN
            )
        elif whole and not modules:
            for one in whole:
                yield _job("whole", parameter, after, partial(check_whole, one, after))
        elif modules and not whole and len(modules) == len(names):
            if not place.plain:
                raise fail("proof-failed", f"{name} is rearranged on loading; its update cannot be proven")
            for module in modules:  # what is tied is each side's own base and update
                yield from _update_jobs(module, place, before, after, in_4_bits, experts)
        elif modules:
            raise fail("proof-failed", f"{parameter} is tied, and trained in two ways", _AGAIN)
        elif in_4_bits:
            yield _job("held", parameter, after, partial(check_held, before, after, in_4_bits))
        else:
            yield _job("kept", parameter, after, partial(check_kept, before, after))


def _update_jobs(
    module: Module,
    place: Place,
    before: Slab,
    after: Slab,
    four: FourBit | None,
    experts: dict[str, list[Low]],
) -> Iterator[_Job]:
    name = module.parameter
    if module.kind != "experts":

        def check() -> Finding:
            return Updated(before, after, module.low(), module, four).check()

        yield _job("updated", name, after, check)
        return
    if name not in experts:
        experts[name] = module.low_of_experts()
    stacked = place.expert is None and len(before.shape) == 3  # all experts in one stored tensor
    for number in range(len(experts[name])) if stacked else [place.expert or 0]:
        one, other = (_part(before, number), _part(after, number)) if stacked else (before, after)
        low = experts[name][number]
        low = replace(low, left=low.left[place.first : place.first + other.rows])
        yield _job("updated", name, after, Updated(one, other, low, None, four).check)


def _part(slab: Slab, number: int) -> Slab:
    size = slab.size // slab.shape[0]
    return replace(slab, shape=slab.shape[1:], start=slab.start + number * size, size=size)


def _run(jobs: list[_Job], progress: Progress) -> list[tuple[_Job, Finding]]:
    count = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    before, total, done, found = torch.get_num_threads(), sum(job.merged.size for job in jobs), 0, []
    try:
        with ThreadPoolExecutor(count, "proof", initializer=_alone) as pool:
            for job, finding in zip(jobs, pool.map(lambda job: job.run(), jobs), strict=True):
                done += job.merged.size
                progress.step(done, total, job.merged.file.name)
                found.append((job, finding))
    finally:
        torch.set_num_threads(before)
    return found


def _alone() -> None:
    """Each thread computes alone: cores are shared among tensors. Gradients are off by thread."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


def _refuse(findings: list[tuple[_Job, Finding]], progress: Progress) -> None:
    wrong = [(job, finding) for job, finding in findings if finding.fault]
    if not wrong:
        return
    problems = []
    for job, finding in wrong[:_NAMED]:
        module = job.module.removesuffix(".weight")
        named = f"{module}: {finding.tensor} in {job.merged.file} {finding.fault}"
        problems.append(Diagnostic("proof-failed", named))
    more = len(wrong) - len(problems)
    text = f"{len(wrong)} of {len(findings)} tensors are not what was trained"
    text += f"; {more} more are not listed" if more else ""
    raise TunebuildError((*problems, Diagnostic("proof-failed", text, _AGAIN)))


def _proof(strategy: Strategy, findings: list[tuple[_Job, Finding]], tensors: int) -> Proof:
    def count(kind: str) -> int:
        return len({finding.tensor for job, finding in findings if job.kind == kind})

    updated = [finding for job, finding in findings if job.kind == "updated"]
    worst = max(updated, key=lambda f: f.worst, default=Finding(""))
    probe = max(updated, key=lambda f: f.probe, default=Finding(""))
    lost = max(updated, key=lambda f: f.lost, default=Finding(""))
    return Proof(
        strategy=strategy,
        updated=count("updated"),
        rows=count("rows"),
        whole=count("whole"),
        held=count("held"),
        kept=count("kept"),
        adapter_tensors=tensors,
        worst=worst.tensor,
        worst_share=_rounded(worst.worst),
        probe=probe.tensor,
        probe_share=_rounded(probe.probe),
        lost=lost.tensor,
        lost_share=_rounded(lost.lost),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _check_configs(base: Path, merged: Path) -> None:
    for name in _CONFIGS:
        one, other = base / name, merged / name
        if one.is_file() != other.is_file() or (
            one.is_file() and json.loads(one.read_text("utf-8")) != json.loads(other.read_text("utf-8"))
        ):
            raise fail("proof-failed", f"{other} is not the base's", _AGAIN)
