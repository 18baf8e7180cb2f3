"""Runs all checks; none can keep the others from their findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from tunebuild.errors import TunebuildError
from tunebuild.preflight.doctor import (
    card,
    disk,
    hub,
    memory,
    mirrors,
    packages,
    quantization,
    registry,
    runtimes,
)
from tunebuild.preflight.doctor.finding import Finding, Needs, problem
from tunebuild.preflight.doctor.machine import Machine

Check = Callable[[Machine, Needs | None], Iterator[Finding]]

#: In the order in which they are shown.
CHECKS: tuple[tuple[str, Check], ...] = tuple(
    (module.NAME, module.check)
    for module in (packages, card, quantization, memory, disk, runtimes, registry, mirrors, hub)
)


def examine(
    machine: Machine, needs: Needs | None, checks: Sequence[tuple[str, Check]] = CHECKS
) -> tuple[tuple[str, Finding], ...]:
    """All findings with the names of their checks, which run side by side: most of them wait for an answer.

    Args:
        machine: what is looked at.
        needs: what a spec asks of it, if there is one.
        checks: names and checks.
    """
    with ThreadPoolExecutor(len(checks)) as pool:
        found = [(name, pool.submit(_findings, check, machine, needs)) for name, check in checks]
        return tuple((name, finding) for name, future in found for finding in future.result())


def _findings(check: Check, machine: Machine, needs: Needs | None) -> list[Finding]:
    found: list[Finding] = []
    try:
        for finding in check(machine, needs):
            found.append(finding)  # one by one: what came before an error stays
    except TunebuildError as error:
        first = error.diagnostics[0]
        found.append(problem(first.message, first.hint))
    except Exception as error:  # noqa: BLE001 - a check that fails is a finding, whatever it fails with
        text = f"this check failed itself: {type(error).__name__}: {error}"
        found.append(problem(text, "the other findings stand; report this one"))
    return found
