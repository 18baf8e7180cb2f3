"""``tunebuild lock``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import set_option, store_option
from tunebuild.errors import Diagnostic, TunebuildError, fail
from tunebuild.grammar import counted


@click.command("lock")
@click.argument("specs", type=click.Path(path_type=Path), metavar="SPEC...", nargs=-1, required=True)
@click.option(
    "--update",
    multiple=True,
    metavar="NAME",
    help="Let one thing move: model, the name of a dataset, Debian package or wheel, datasets, packages, "
    "wheels, or all.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the lock is missing or behind.")
@set_option
@store_option
def command(
    specs: tuple[Path, ...], update: tuple[str, ...], check: bool, overrides: tuple[str, ...], store: Path
) -> None:
    """Pin everything that each SPEC names in a lock file beside it, SPEC with the ending .lock.

    Data files, the template and the base model are pinned by SHA-256, what is on a hub also by commit, and
    what the image stands on by version and SHA-256. Builds take from the lock what they fetch; with
    'build --locked' they refuse anything else that has moved. Commit the lock.

    Running it again keeps what was fetched and notes what you changed; --update lets one thing move.
    """
    if check and update:
        raise fail("lock-check", "--check changes nothing, so --update has no meaning with it", "drop one")
    problems: list[Diagnostic] = []
    for spec in specs:
        try:
            _lock(spec, update, check, overrides, store)
        except TunebuildError as error:
            problems += error.diagnostics  # the others are still told, or locked
    if problems:
        raise TunebuildError(tuple(problems))


def _lock(spec: Path, update: tuple[str, ...], check: bool, overrides: tuple[str, ...], store: Path) -> None:
    from tunebuild.build.lock import make_lock, require_no_drift
    from tunebuild.cli._pipeline import pipeline_of, placed
    from tunebuild.cli._progress import Reporter
    from tunebuild.lock.spec_lock import drift, lock_path, write_lock

    pipeline = pipeline_of(spec, store, overrides)
    path, old = lock_path(spec), pipeline.lock
    with placed(pipeline):
        if check:
            require_no_drift(pipeline, old, path)
            echo(f"{path}: up to date", err=True)
            return
        with Reporter() as reporter:
            new = make_lock(pipeline, old, update, reporter)
    changes = drift(old, new)
    if not changes:
        echo(f"{path}: nothing has changed", err=True)
        return
    write_lock(new, path)
    for change in changes if old else ():
        echo(f"  {change}", err=True)
    counts = f"{counted(len(new.files), 'file')}, {counted(len(new.model.files), 'model file')}"
    counts += f", {len(new.runtime.packages)} packages, {len(new.runtime.wheels)} wheels"
    echo(f"{path}: {counts}", err=True)
