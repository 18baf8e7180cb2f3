"""Proves a written checkpoint, tensor by tensor."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunebuild.errors import Diagnostic, TunebuildError, fail
from tunebuild.merge.proof._check import Finding
from tunebuild.merge.proof._files import slabs
from tunebuild.merge.proof._jobs import AGAIN, Job, jobs_for
from tunebuild.merge.strategies import Strategy
from tunebuild.store import Progress

_CONFIGS = ("config.json", "generation_config.json")
_MOST_THREADS = 8
_NAMED = 12  # modules in an error


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
        jobs, tensors = jobs_for(strategy, base, trained, stored, written)
        findings = _run(jobs, progress)
    _refuse(findings, progress)
    return _proof(strategy, findings, tensors)


def _run(jobs: list[Job], progress: Progress) -> list[tuple[Job, Finding]]:
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


def _refuse(findings: list[tuple[Job, Finding]], progress: Progress) -> None:
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
    raise TunebuildError((*problems, Diagnostic("proof-failed", text, AGAIN)))


def _proof(strategy: Strategy, findings: list[tuple[Job, Finding]], tensors: int) -> Proof:
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
            raise fail("proof-failed", f"{other} is not the base's", AGAIN)
