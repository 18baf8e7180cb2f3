"""``tunebuild load``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import set_option, store_option


@click.command("load")
@click.argument("source", metavar="SPEC|ARCHIVE", type=click.Path(path_type=Path))
@click.option(
    "--engine",
    type=click.Choice(["auto", "docker", "podman"]),
    default="auto",
    show_default=True,
    help="The container runtime; 'auto' is the first that answers.",
)
@set_option
@store_option
def command(source: Path, engine: str, overrides: tuple[str, ...], store: Path) -> None:
    """Load an image into Docker or Podman, from the store for a SPEC, or from an ARCHIVE or OCI layout.

    Docker is sent only the layers that it lacks. Prints the image's ID. If the name stood for another image,
    that is said.
    """
    from tunebuild.cli._progress import Reporter
    from tunebuild.containers.find import find_container_runtime
    from tunebuild.extras import require
    from tunebuild.publish.stored import image_of

    stored = source.suffix == ".tar" or source.is_dir()
    if not stored:
        require("train", what="'load' of a spec")
    runtime = find_container_runtime("" if engine == "auto" else engine)
    if stored:
        image = image_of(source)
    else:
        from tunebuild.cli._building import build_spec

        image = build_spec(source, store, overrides).image
    with Reporter() as reporter:
        progress = reporter("load")
        report = runtime.load(image, progress)
        sizes = f"{report.sent / 1e6:,.1f} of {report.total / 1e6:,.1f} MB sent to {runtime.name}"
        progress.say(f"{image.reference.full_name}: {sizes}")
        if report.replaced:
            progress.say(replaced_text(image.reference.full_name, report.replaced))
    echo(report.image_id)


def replaced_text(name: str, old: str) -> str:
    """What is said where a name stood for another image; that one is kept, without the name."""
    return f"{name} stood for {old[:19]} before; that image is still there by its ID"
