"""Docker and Podman."""

from __future__ import annotations

from collections.abc import Iterator

from tunebuild.containers.find import find_container_runtime
from tunebuild.errors import TunebuildError
from tunebuild.preflight.doctor.finding import Finding, Needs, ok, warning
from tunebuild.preflight.doctor.machine import Machine

NAME = "containers"

_WITHOUT = "load, and run and verify in a container, cannot use it; build, push and bundle need none"


def check(machine: Machine, needs: Needs | None) -> Iterator[Finding]:
    """Each of them; one is enough."""
    found: dict[str, str] = {}
    fixes: dict[str, str] = {}
    for name in ("docker", "podman"):
        try:
            find_container_runtime(name)
        except TunebuildError as error:
            found[name], fixes[name] = error.diagnostics[0].message, error.diagnostics[0].hint
    for name in ("docker", "podman"):
        if name not in found:
            yield ok(f"{name} answers")
        elif len(found) == 1:
            yield ok(f"{_reason(found[name])}; the other one is enough")
        else:
            yield warning(f"{_reason(found[name])}: {_WITHOUT}", fixes[name])


def _reason(message: str) -> str:
    return message.removeprefix("no container runtime answers (").removesuffix(")")
