"""``tunebuild launch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import NEW_FILE, set_option, spec_argument, store_option

if TYPE_CHECKING:
    from tunebuild.train.launch.render import Launcher


@click.command("launch")
@spec_argument
@click.option(
    "--launcher",
    type=click.Choice(["torchrun", "slurm", "kubernetes"]),
    default="torchrun",
    show_default=True,
    help="What starts the processes.",
)
@click.option("-o", "--output", type=NEW_FILE, help="File to write.  [default: print it]")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=29500, show_default=True, help="Of the first node."
)
@click.option("--image", default="", help="Kubernetes: an image with tunebuild[train].")
@click.option(
    "--claim", default="", help="Kubernetes: the PersistentVolumeClaim with the spec's directory at its root."
)
@set_option
@store_option
def command(
    spec: Path,
    launcher: Launcher,
    output: Path | None,
    port: int,
    image: str,
    claim: str,
    overrides: tuple[str, ...],
    store: Path,
) -> None:
    """Render what starts SPEC's training on tuning.nodes machines with tuning.processes each.

    The spec's directory and the store must be on a volume that all of them share. When the training is done,
    'tunebuild build SPEC' with the same store goes on from there.
    """
    from tunebuild.image.oci.reference import ImageReference
    from tunebuild.spec import load_spec
    from tunebuild.train.launch.render import Launch, render_launch

    if image:
        ImageReference.parse(image)
    text = render_launch(load_spec(spec, overrides), launcher, Launch(store, overrides, port, image, claim))
    if output:
        output.write_text(text, "utf-8")
    else:
        echo(text, nl=False)
