"""Arguments and options that several verbs share."""

from __future__ import annotations

import os
from pathlib import Path

import click

spec_argument = click.argument("spec", type=click.Path(path_type=Path), metavar="SPEC")


def default_store() -> Path:
    """``$TUNEBUILD_STORE``, else ``tunebuild`` in the user's cache directory."""
    if chosen := os.environ.get("TUNEBUILD_STORE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunebuild"


store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_store,
    help="Where finished stages are kept.  [default: $TUNEBUILD_STORE or ~/.cache/tunebuild]",
)

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Set a field of SPEC, e.g. --set tuning.epochs=1; null gives it its default. May be repeated.",
)
