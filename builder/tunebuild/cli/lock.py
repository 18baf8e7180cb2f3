"""``tunebuild lock``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import set_option, store_option
from tunebuild.errors import fail
from tunebuild.grammar import counted

if TYPE_CHECKING:
    from tunebuild.lock.lock_file import LockFile
    from tunebuild.store import Store


@click.command("lock")
@click.argument("specs", type=click.Path(path_type=Path), metavar="[SPEC]...", nargs=-1)
@click.option(
    "-o",
    "--lock",
    "lock_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The lock file. Without SPEC, all specs that it names are meant.",
)
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
    specs: tuple[Path, ...],
    lock_file: Path | None,
    update: tuple[str, ...],
    check: bool,
    overrides: tuple[str, ...],
    store: Path,
) -> None:
    """Record each SPEC and pin everything that it names in a lock file.

    The lock of one spec is beside it, SPEC with the ending .lock. That of several is one file,
    tunebuild.lock beside the base that all of them extend, where each pin stands once; builds of any of them
    find it there. A spec that is locked later joins it, and all of its specs are locked and checked together.

    The effective spec (extends and --set included) is recorded field by field. Data files, the template and
    the base model are pinned by SHA-256, what is on a hub also by commit, and what the image stands on by
    version and SHA-256. Builds take from the lock what they fetch; with 'build --locked' they refuse
    anything that differs. Commit the lock.

    Running it again keeps what was fetched and notes what you changed; --update lets one thing move.
    """
    if check and update:
        raise fail("lock-check", "--check changes nothing, so --update has no meaning with it", "drop one")
    if not specs and lock_file is None:
        raise fail("lock-where", "there is no spec to lock", "name specs, or a lock file: --lock FILE")

    from tunebuild.build.lock_set import check_locks
    from tunebuild.store import Store

    if check:
        for path in check_locks(specs, overrides, lock_file, Store(store)):
            echo(f"{path}: up to date", err=True)
        return
    _write(specs, lock_file, update, overrides, Store(store))


def _write(
    specs: tuple[Path, ...],
    lock_file: Path | None,
    update: tuple[str, ...],
    overrides: tuple[str, ...],
    store: Store,
) -> None:
    from tunebuild.build.lock_set import LockSet, changes
    from tunebuild.cli._progress import Reporter
    from tunebuild.lock.lock_file import write_locks

    together = LockSet.of(specs, overrides, lock_file)
    path, old = together.path, together.present
    with Reporter() as reporter:
        new = together.resolve(store, update, reporter)
    if new == old:
        echo(f"{path}: nothing has changed", err=True)
    else:
        write_locks(new, path)
        for change in changes(old, new) if old else ():
            echo(f"  {change}", err=True)
        echo(f"{path}: {_counts(new)}", err=True)
    for other in together.superseded:
        echo(f"{other} is no longer needed: remove it", err=True)


def _counts(lock: LockFile) -> str:
    specs = f"{counted(len(lock.specs), 'spec')}, " if len(lock.specs) > 1 else ""
    models = sum(len(model.files) for model in lock.models.values())
    return (
        f"{specs}{counted(len(lock.files), 'file')}, {counted(models, 'model file')}, "
        f"{len(lock.packages)} packages, {len(lock.wheels)} wheels"
    )
