"""``tunebuild cache``."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tunebuild.cli._echo import echo, echo_json
from tunebuild.cli._options import SIZE, store_option
from tunebuild.errors import TunebuildError
from tunebuild.store import Store, inventory

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class _Age(click.ParamType[float]):
    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+)([smhdw])", str(value).lower())
        if not match:
            self.fail(f"{value!r} is not an age such as 30d or 12h", param, ctx)
        return float(int(match[1]) * _SECONDS[match[2]])


@click.group("cache")
def command() -> None:
    """List, explain, check and clean the store of finished stages.

    Every stage of every build is kept under a key made of what went into it, and found again by any spec
    that needs the same. Removing a stage costs time, never a result.
    """


@command.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_option
def list_(as_json: bool, store: Path) -> None:
    """List finished stages, most recently used first, and what is unfinished or left over.

    Behind each stand the names of the specs whose builds have used it.
    """
    opened = Store(store)
    kept = inventory.records(opened)
    left = [("unfinished", x) for x in inventory.unfinished(opened)]
    left += [("left over", x) for x in inventory.unnamed(opened)]
    if as_json:
        rows = [
            {"key": k.key, "output": k.tree, "size": k.size, "used": _when(k.used), "specs": list(k.names)}
            for k in kept
        ]
        rest = [
            {"kind": kind, "path": str(x.path), "size": x.size, "used": _when(x.used)} for kind, x in left
        ]
        echo_json({"records": rows, "leftovers": rest})
        return
    for k in kept:
        echo(f"{k.key:<34} {_size(k.size):>9}  {_when(k.used)}  {', '.join(k.names)}".rstrip())
    for kind, x in left:
        echo(f"{x.path.name[:33]:<34} {_size(x.size):>9}  {_when(x.used)}  {kind}")
    total = sum({k.tree: k.size for k in kept}.values()) + sum(x.size for _, x in left)
    echo(f"{len(kept)} stages, {_size(total)} in {store}", err=True)


@command.command("explain")
@click.argument("key")
@store_option
def explain(key: str, store: Path) -> None:
    """Show what the stage KEY was made from and what it made. The start of a key is enough."""
    opened = Store(store)
    kept = inventory.find_record(opened, key)
    echo(f"{kept.key}\noutput {kept.tree}, {_size(kept.size)}\n")
    echo_json(inventory.recorded_inputs(kept))


@command.command("gc")
@click.option("--older-than", type=_Age(), help="Remove stages not used for so long, e.g. 30d or 12h.")
@click.option("--max-size", type=SIZE, help="Remove least recently used stages until so much is left.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@store_option
def collect(older_than: float | None, max_size: int | None, dry_run: bool, store: Path) -> None:
    """Free space. Without options, remove unfinished work older than a day, and what no stage names.

    What a running build holds is never touched.
    """
    done = inventory.collect(Store(store), older_than=older_than, max_bytes=max_size, dry_run=dry_run)
    for name in (*done.keys, *(path.name for path in done.leftovers)):
        echo(f"{'would remove' if dry_run else 'removed'} {name}", err=True)
    echo(f"{_size(done.freed)} {'would be freed' if dry_run else 'freed'}", err=True)


@command.command("verify")
@click.option("--remove", is_flag=True, help="Forget what is damaged, so that the next build makes it anew.")
@store_option
def verify(remove: bool, store: Path) -> None:
    """Read every byte of every stage back. Exit 1, naming each file that is not what was written."""
    from tunebuild.cli._progress import Reporter

    opened = Store(store)
    problems = []
    started = time.monotonic()
    with Reporter() as reporter:
        progress = reporter("verify")
        for kept, error in inventory.damaged(opened, progress):
            problems += [d for d in error.diagnostics if d not in problems]
            if remove:
                inventory.drop(opened, kept)
                progress.say(f"removed {kept.key}")
    if problems and not remove:
        raise TunebuildError(tuple(problems))
    count = len(inventory.records(opened))
    echo(f"{count} stages are what was written ({time.monotonic() - started:.1f} s)", err=True)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
