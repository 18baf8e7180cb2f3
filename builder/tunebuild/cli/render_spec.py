"""``tunebuild render-spec``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._echo import echo, echo_json
from tunebuild.cli._options import set_option, spec_argument
from tunebuild.spec import load_spec
from tunebuild.spec.canonical import canonical_yaml, effective


@click.command("render-spec")
@spec_argument
@click.option("--no-defaults", is_flag=True, help="Leave out what has its default value.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
@set_option
def command(spec: Path, no_defaults: bool, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Print the effective spec: what SPEC extends and --set are merged, defaults are written out.

    The output is canonical: equal specs print equally, and it reads back as the same spec. Secrets appear
    as the ${env:NAME} that the spec names, never as their values.
    """
    loaded = load_spec(spec, overrides)
    if as_json:
        value = effective(loaded.spec, defaults=not no_defaults)
        echo_json(value)
    else:
        echo(canonical_yaml(loaded.spec, defaults=not no_defaults), nl=False)
