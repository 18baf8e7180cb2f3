"""``tunebuild bundle``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import set_option, spec_argument, store_option
from tunebuild.cli._registry import sign_option
from tunebuild.extras import require


@click.command("bundle")
@spec_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Archive to write (.tar), or a directory.",
)
@sign_option
@set_option
@store_option
def command(spec: Path, output: Path, sign_key: Path | None, overrides: tuple[str, ...], store: Path) -> None:
    """Write everything that SPEC publishes into one file, to carry where there is no network.

    It holds all outputs, SBOMs, provenance and, with --sign-key, signatures, as one OCI layout. On the other
    side, 'verify --offline FILE --key KEY' checks it, 'load FILE' gives the image to Docker or Podman, and
    'push FILE REF' sends all of it to a registry. Prints the image's digest.
    """
    require("train", what="'bundle'")
    from tunebuild.build.release import release_of_build
    from tunebuild.cli._building import build_spec
    from tunebuild.cli._progress import Reporter
    from tunebuild.image.oci.archive import write_archive, write_layout
    from tunebuild.publish.trust.signing import Signer

    signer = Signer.load(sign_key) if sign_key else None
    built = build_spec(spec, store, overrides)
    release = release_of_build(built, signer)
    with Reporter() as reporter:
        progress = reporter("bundle")
        write = write_archive if output.suffix == ".tar" else write_layout
        write(built.image, output, progress, release.contents[1:])
        size = sum(blob.size for blob in release.blobs())
        progress.say(f"{output}, {size / 1e6:,.1f} MB, {len(release.contents)} manifests")
        for content in release.contents[1:]:
            if content.output:
                progress.say(f"{content.output}: {content.digest}")
    echo(release.digest)
