"""``tunebuild doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunebuild.cli._echo import echo, echo_json
from tunebuild.cli._options import lock_option, set_option, store_option
from tunebuild.errors import TunebuildError
from tunebuild.grammar import counted
from tunebuild.printable import printable_line

if TYPE_CHECKING:
    from tunebuild.build.pipeline import Pipeline
    from tunebuild.preflight.doctor.finding import Finding, Needs

_COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command("doctor")
@click.argument("spec", type=click.Path(path_type=Path), metavar="[SPEC]", required=False)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@set_option
@lock_option
@store_option
def command(
    spec: Path | None, form: str, overrides: tuple[str, ...], lock_file: Path | None, store: Path
) -> None:
    """Check what this machine can do; with SPEC, whether it can build that.

    Looks at Python and the packages of each extra, the NVIDIA driver and card against torch, bitsandbytes,
    memory, disk, Docker and Podman, the registry of the image, the package mirrors and the model hub. SPEC is
    planned, so memory and disk are compared with the plan's estimates; a model that is not here is not
    fetched for that.

    A server that does not answer within 5 seconds is a warning that says what will not work without it.
    Each problem and warning comes with its fix. Exit 0 if there is no problem, else 1.
    """
    from tunebuild.preflight.doctor.examine import examine
    from tunebuild.preflight.doctor.machine import Machine

    needs = _needs(spec, store, overrides, lock_file) if spec else None
    found = examine(Machine(store), needs)
    if form == "json":
        echo_json({"spec": str(spec) if spec else None, "findings": _as_json(found)})
    else:
        _print(found)
    if any(finding.status == "problem" for _, finding in found):
        raise TunebuildError(())


def _needs(spec: Path, store: Path, overrides: tuple[str, ...], lock_file: Path | None) -> Needs:
    from tunebuild.build.needs import needs_of
    from tunebuild.cli._progress import Reporter
    from tunebuild.spec import load_spec

    def opened() -> Pipeline:
        from tunebuild.cli._pipeline import pipeline_of

        return pipeline_of(spec, store, overrides, lock_file=lock_file)

    loaded = load_spec(spec, overrides)
    with Reporter() as reporter:
        return needs_of(loaded, opened, spec.parent / "dist" / f"{loaded.spec.name}.tar", reporter)


def _as_json(found: Sequence[tuple[str, Finding]]) -> list[dict[str, str]]:
    return [
        {"check": name, "status": finding.status, "text": finding.text, "fix": finding.fix}
        for name, finding in found
    ]


def _print(found: Sequence[tuple[str, Finding]]) -> None:
    width = max(len(name) for name, _ in found)
    for name, finding in found:
        status = click.style(f"{finding.status:<7}", fg=_COLORS[finding.status])
        echo(f"  {name:<{width}}  {printable_line(finding.text)}", head=status)
        if finding.fix:
            echo(f"{'':<{width + 9}}  fix: {printable_line(finding.fix)}")
    counts = {status: sum(finding.status == status for _, finding in found) for status in _COLORS}
    said = f"{counted(counts['problem'], 'problem')}, {counted(counts['warning'], 'warning')}"
    echo(f"\n{said}, {counts['ok']} ok")
