"""``tunebuild render``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import lock_option, set_option, spec_argument, store_option


@click.command("render")
@spec_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Directory for the build context: new, empty, or rendered before.",
)
@set_option
@lock_option
@store_option
def command(
    spec: Path, output: Path, overrides: tuple[str, ...], lock_file: Path | None, store: Path
) -> None:
    """Write the whole Docker build context of SPEC: Dockerfile, layers, weights, settings.

    Any builder takes it from there, e.g. 'docker build DIR', 'podman build DIR' or kaniko. The Dockerfile
    has no RUN step and needs no network, and gives the same files as the image that 'build' writes.
    """
    from tunebuild.cli._building import build_spec
    from tunebuild.cli._progress import Reporter
    from tunebuild.image.context import render_context

    built = build_spec(spec, store, overrides, lock_file=lock_file)
    with Reporter() as reporter:
        render_context(built.plan, output, reporter("render"))
    echo(f"{output} is ready; for example: docker build -t {built.image.reference} {output}", err=True)
