"""``tunebuild validate``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._options import spec_argument
from tunebuild.spec import load_spec


@click.command("validate")
@spec_argument
def command(spec: Path) -> None:
    """Check SPEC against the schema and its cross-field rules.

    Prints every problem at once as FILE:LINE:COLUMN PATH: MESSAGE; HINT. Needs no network, no GPU and
    none of the training libraries.
    """
    loaded = load_spec(spec)
    click.echo(f"{spec}: valid ({loaded.spec.name})", err=True)
