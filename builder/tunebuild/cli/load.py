"""``tunebuild load``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import lock_option, refuse_spec_options, runtime_option, set_option, store_option


@click.command("load")
@click.argument("source", metavar="SPEC|ARCHIVE", type=click.Path(path_type=Path))
@runtime_option(["auto", "docker", "podman"], "The container runtime; 'auto' is the first that answers.")
@set_option
@lock_option
@store_option
def command(
    source: Path, runtime: str, overrides: tuple[str, ...], lock_file: Path | None, store: Path
) -> None:
    """Load an image into Docker or Podman, from the store for a SPEC, or from an ARCHIVE or OCI layout.

    Docker is sent only the layers that it lacks. Prints the image's ID. If the name stood for another image,
    that is said.
    """
    from tunebuild.cli._progress import Reporter
    from tunebuild.cli._publishing import publish
    from tunebuild.containers.find import find_container_runtime
    from tunebuild.extras import require
    from tunebuild.publish.runtime import RuntimePublisher

    stored = source.suffix == ".tar" or source.is_dir()
    if not stored:
        require("train", what="'load' of a spec")
    found = find_container_runtime("" if runtime == "auto" else runtime)
    if stored:
        refuse_spec_options(source, overrides, lock_file)
        from tunebuild.publish.stored import named_release_of

        release, name = named_release_of(source)
    else:
        from tunebuild.cli._building import build_spec
        from tunebuild.image.oci.content import Content
        from tunebuild.publish.release import Release

        image = build_spec(source, store, overrides, lock_file=lock_file).image
        release, name = Release((Content.of_image(image),)), image.reference
    with Reporter() as reporter:
        (done,) = publish(release, [RuntimePublisher(found, name)], reporter)
    echo(done.digest)
