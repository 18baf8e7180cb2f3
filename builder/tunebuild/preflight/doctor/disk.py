"""Free disk where the store is, against what the plan needs."""

from __future__ import annotations

from collections.abc import Iterator

from tunebuild.preflight.doctor.finding import Finding, Needs, gigabytes, ok, problem, warning
from tunebuild.preflight.doctor.machine import Machine

NAME = "disk"

_NOTHING = 2_000_000_000  # the packages of the smallest image do not fit
_LITTLE = 60_000_000_000  # base, merged weights, packages and archive of a 7B model
_FIX = "free some space ('tunebuild cache gc' drops what is not used), or choose another --store"


def check(machine: Machine, needs: Needs | None) -> Iterator[Finding]:
    """Whether the store can be written to, and has room."""
    if why := machine.writable(machine.store):
        yield problem(f"nothing can be written to {machine.store}: {why.lower()}", "choose another --store")
        return
    free = machine.free(machine.store)
    there = f"{gigabytes(free)} are free at {machine.store}"
    if needs and needs.disk:
        most, _, lacking = needs.disk
        if lacking:
            text = (
                f"{there}, and building {needs.name} takes {gigabytes(most)}: {gigabytes(lacking)} too little"
            )
            yield problem(text, _FIX)
        else:
            yield ok(f"{there}, and building {needs.name} takes {gigabytes(most)}")
    elif free < _NOTHING:
        yield problem(f"{there}, too little for any image", _FIX)
    elif free < _LITTLE and needs is None:
        yield warning(f"{there}; building a 7B model takes about {gigabytes(_LITTLE)}", _FIX)
    else:
        yield ok(there)
