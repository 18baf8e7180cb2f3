"""Python and the installed packages, against what each extra asks for."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires
from typing import TYPE_CHECKING

from tunebuild.extras import install_command
from tunebuild.preflight.doctor.finding import Finding, Needs, ok, problem, warning
from tunebuild.preflight.doctor.machine import Machine, few

if TYPE_CHECKING:
    from packaging.requirements import Requirement

NAME = "packages"

_ENABLES = {
    "plan": "data, plan and lock",
    "train": "build",
    "serve": "serving as a local process",
    "docker": "Docker",
    "image": "registries and signatures",
    "export": "export",
    "lm-eval": "tasks",
}
_CORE = ("plan", "train")  # what a machine without a spec is asked for


def check(machine: Machine, needs: Needs | None) -> Iterator[Finding]:
    """One finding for Python, and one for each extra."""
    try:
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet
    except ModuleNotFoundError:
        text = "the core alone is installed, so specs can be validated, but not planned or built"
        yield (problem if needs else warning)(text, install_command(("train", "serve")))
        return
    try:
        asked, wanted = str(metadata("tunebuild")["Requires-Python"] or ""), requires("tunebuild") or []
    except PackageNotFoundError:
        yield problem("tunebuild runs from a directory that is not installed", "pip install -e . there")
        return
    python = platform.python_version()
    if python in SpecifierSet(asked):
        yield ok(f"Python {python} fits {asked}")
    else:
        yield problem(f"Python {python} is not one that tunebuild needs: {asked}", "use another Python")
    by_extra: dict[str, list[Requirement]] = {"": []}
    for requirement in map(Requirement, wanted):
        named = re.search(r"extra == ['\"]([\w-]+)['\"]", str(requirement.marker or ""))
        by_extra.setdefault(named[1] if named else "", []).append(requirement)
    by_extra["train"] = [*by_extra.get("train", ()), *by_extra.get("plan", ())]
    for extra, enables in _ENABLES.items():
        requirements = [*by_extra[""], *by_extra.get(extra, ())]
        yield _extra(machine, needs, extra, enables, requirements)


def _extra(
    machine: Machine, needs: Needs | None, extra: str, enables: str, wanted: list[Requirement]
) -> Finding:
    missing, wrong = [], []
    for requirement in wanted:
        if requirement.name == "tunebuild":
            continue
        within = {extra, "plan"} if extra == "train" else {extra}
        if requirement.marker and not any(requirement.marker.evaluate({"extra": one}) for one in within):
            continue
        found = machine.version(requirement.name)
        if found is None:
            missing.append(requirement.name)
        elif not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} (needs {requirement.specifier})")
    asked = extra in (needs.extras if needs else _CORE)
    if wrong:
        text = f"packages of the extra '{extra}' have other versions than it needs: {few(wrong)}"
        return (problem if asked else warning)(text, install_command((extra,)))
    if missing:
        text = f"the extra '{extra}' lacks {few(missing)}, so {enables} will not work here"
        if asked:
            return (problem if needs else warning)(text, install_command((extra,)))
        return ok(f"the extra '{extra}' ({enables}) is not installed, and not needed for this")
    return ok(f"the extra '{extra}' ({enables}) is complete")
