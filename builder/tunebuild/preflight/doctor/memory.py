"""Memory, against what the plan estimates training to take."""

from __future__ import annotations

from collections.abc import Iterator

from tunebuild.preflight.doctor.finding import Finding, Needs, gigabytes, ok, problem, warning
from tunebuild.preflight.doctor.machine import Machine
from tunebuild.train.plan.hardware import device_memory
from tunebuild.train.plan.settings import ways_to_less

NAME = "memory"

_LITTLE = 8_000_000_000  # libraries and a model of half a billion parameters


def check(machine: Machine, needs: Needs | None) -> Iterator[Finding]:
    """Of the device that trains; without a plan, of this process."""
    if needs and needs.unplanned:
        worse = problem if needs.refused else warning
        yield worse(f"memory and disk were not estimated: {needs.unplanned}", needs.advice)
    if needs and needs.memory:
        total, available = needs.memory
        takes = f"training {needs.name} takes an estimated {gigabytes(total)}"
        if available is None:
            yield warning(f"{takes}, and what the device has is not known", "install torch to ask it")
        elif total > available:
            fix = f"{ways_to_less(needs.method)}, or train on a larger device"
            yield problem(f"{takes}, and there are {gigabytes(available)}", fix)
        else:
            yield ok(f"{takes}, and there are {gigabytes(available)}")
        return
    available = device_memory("cpu")
    if available is not None and available < _LITTLE:
        text = f"this process may use {gigabytes(available)} of memory, too little for most models"
        yield warning(text, "raise the limit of the container, or use a larger machine")
    else:
        yield ok(f"this process may use {gigabytes(available or 0)} of memory")
