"""``tunebuild schema``."""

from __future__ import annotations

import click

from tunebuild.cli._echo import echo, echo_json
from tunebuild.spec.publish import schema_text
from tunebuild.spec.reference import reference_page


@click.command("schema")
@click.argument("what", type=click.Choice(["spec", "plan"]), default="spec")
@click.option("--markdown", is_flag=True, help="Print the spec's reference page instead.")
def command(what: str, markdown: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of a spec, or of what 'plan --json' prints.

    Editors with a YAML language server complete and check a spec whose first line is
    '# yaml-language-server: $schema=tunebuild-v1.schema.json'.
    """
    if what == "plan":
        from tunebuild.build.plan.report import plan_schema

        echo_json(plan_schema())
    else:
        echo(reference_page() if markdown else schema_text(), nl=False)
