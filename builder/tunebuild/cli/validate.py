"""``tunebuild validate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from tunebuild.cli._echo import echo, echo_json
from tunebuild.cli._options import set_option
from tunebuild.errors import Diagnostic, TunebuildError
from tunebuild.spec import load_spec


@click.command("validate")
@click.argument("specs", type=click.Path(path_type=Path), metavar="SPEC...", nargs=-1, required=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "sarif"]),
    default="text",
    show_default=True,
    help="How problems are reported: text on stderr, the others on stdout.",
)
@set_option
def command(specs: tuple[Path, ...], form: str, overrides: tuple[str, ...]) -> None:
    """Check each SPEC against the schema and its cross-field rules.

    Prints every problem at once as FILE:LINE:COLUMN PATH: MESSAGE; HINT. Needs no network, no GPU and
    none of the training libraries. Exit 0 if all are valid, else 1.
    """
    problems: list[Diagnostic] = []
    for file in specs:
        try:
            loaded = load_spec(file, overrides)
        except TunebuildError as error:
            problems += error.diagnostics
        else:
            for note in loaded.document.notes:
                echo(note, err=True)
            echo(f"{file}: valid ({loaded.spec.name})", err=True)
    _report(problems, form)
    if problems:
        raise TunebuildError(tuple(problems) if form == "text" else ())


def _report(problems: Sequence[Diagnostic], form: str) -> None:
    from tunebuild.cli import _diagnostics

    if form == "json":
        echo_json(_diagnostics.to_json(problems))
    elif form == "sarif":
        echo_json(_diagnostics.to_sarif(problems))
