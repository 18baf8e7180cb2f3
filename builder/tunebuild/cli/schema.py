"""``tunebuild schema``."""

from __future__ import annotations

import click

from tunebuild.spec.schema import schema_text


@click.command("schema")
def command() -> None:
    """Print the JSON Schema (draft 2020-12) of the spec.

    Editors with a YAML language server complete and check a spec whose first line is
    '# yaml-language-server: $schema=tunebuild-v1.schema.json'.
    """
    click.echo(schema_text(), nl=False)
