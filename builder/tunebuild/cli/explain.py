"""``tunebuild explain``."""

from __future__ import annotations

import json

import click


@click.command("explain")
@click.argument("image")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--spec", "spec_only", is_flag=True, help="Print the spec only, ready to be built again.")
def command(image: str, as_json: bool, spec_only: bool) -> None:
    """Tell what IMAGE was built from: an archive, an OCI layout, or the name of an engine's image.

    Prints the effective spec and what each stage depends on: digests of rows and weights, the prompt,
    libraries, packages. Nothing is started.
    """
    from tunebuild.image.provenance import read_provenance
    from tunebuild.spec import Spec
    from tunebuild.spec.canonical import canonical_yaml

    found = read_provenance(image)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo(canonical_yaml(Spec.model_validate(found["spec"])), nl=False)
    if not spec_only:
        for stage, inputs in found["inputs"].items():
            click.echo(f"\n# {stage}")
            for line in json.dumps(inputs, indent=2, ensure_ascii=False).splitlines():
                click.echo(f"#   {line}")
