"""``tunebuild plan``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunebuild.cli._echo import echo, echo_json
from tunebuild.cli._options import SIZE, lock_option, set_option, spec_argument, store_option

if TYPE_CHECKING:
    from tunebuild.build.pipeline import Pipeline


@click.command("plan")
@spec_argument
@click.option("--json", "form", flag_value="json", help="Print JSON; 'tunebuild schema plan' is its schema.")
@click.option("--markdown", "form", flag_value="markdown", help="Print Markdown for a pull request.")
@click.option(
    "--against",
    metavar="git:REV|SPEC|IMAGE",
    help="Say what differs from a revision of the repository, another spec, an archive, or an image in "
    "Docker or Podman, and what that sets off.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Plan for training there, not here.")
@click.option("--device-memory", type=SIZE, help="Memory of that device, e.g. 24GB.")
@set_option
@lock_option
@store_option
def command(
    spec: Path,
    form: str | None,
    against: str | None,
    device: Any,
    device_memory: int | None,
    overrides: tuple[str, ...],
    lock_file: Path | None,
    store: Path,
) -> None:
    """Show what building SPEC would do, and why, without a GPU.

    Names for each stage the first input that differs from the most similar earlier build of that name;
    counts rows, tokens and steps; estimates memory and disk; and says which image layers would be sent. The
    rows are really read and tokenized, so the build need not do it again; nothing is trained or fetched, but
    for a hub model's files.

    With --against git:REV, SPEC and every file that it names are read as they were at that revision, out of
    Git's objects. Another spec is read as it stands. One that has no lock of its own is taken with the lock
    of SPEC.

    Exit 0 if there is nothing to do, 2 if there is work, 1 on an error.
    """
    from tunebuild.build.plan import render
    from tunebuild.build.plan.against import compare
    from tunebuild.build.plan.make import make_plan
    from tunebuild.cli._pipeline import pipeline_of, placed
    from tunebuild.cli._progress import Reporter
    from tunebuild.errors import TunebuildError

    def other(file: Path) -> Pipeline:
        # A lock of the same revision is as far from that revision's spec as the one that is given from SPEC.
        beside = lock_file and file.resolve().parent / os.path.relpath(
            lock_file.resolve(), spec.resolve().parent
        )
        given = beside if beside and beside.is_file() else None
        return pipeline_of(file, store, lock=pipeline.lock, lock_file=given, **target)

    target = {"device": device, "device_memory": device_memory}
    pipeline = pipeline_of(spec, store, overrides, lock_file=lock_file, **target)
    archive = spec.parent / "dist" / f"{pipeline.spec.name}.tar"
    with placed(pipeline):
        compared = None
        if against:
            compared = compare(against, pipeline, other)
        with Reporter() as reporter:
            plan = make_plan(pipeline, archive, reporter, against=compared)
    if form == "json":
        echo_json(plan.model_dump(mode="json", by_alias=True))
    else:
        echo(render.as_markdown(plan) if form else render.as_text(plan), nl=False)
    if plan.work:
        raise TunebuildError((), exit_code=2)
