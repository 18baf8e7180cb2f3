"""``tunebuild bundle``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import lock_option, set_option, spec_argument, store_option
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
@lock_option
@store_option
def command(
    spec: Path,
    output: Path,
    sign_key: Path | None,
    overrides: tuple[str, ...],
    lock_file: Path | None,
    store: Path,
) -> None:
    """Write everything that SPEC publishes into one file, to carry where there is no network.

    It holds all outputs, SBOMs, provenance and, with --sign-key, signatures, as one OCI layout. On the other
    side, 'verify --offline FILE --key KEY' checks it, 'load FILE' gives the image to Docker or Podman, and
    'push FILE REF' sends all of it to a registry. Prints the image's digest.
    """
    require("train", what="'bundle'")
    from tunebuild.build.release import release_of_build
    from tunebuild.cli._building import build_spec
    from tunebuild.cli._progress import Reporter
    from tunebuild.cli._publishing import publish
    from tunebuild.publish.path import publisher_to
    from tunebuild.publish.trust.signing import Signer

    signer = Signer.load(sign_key) if sign_key else None
    built = build_spec(spec, store, overrides, lock_file=lock_file)
    release = release_of_build(built, signer)
    with Reporter() as reporter:
        publish(release, [publisher_to(output, built.image.reference, "bundle")], reporter)
    echo(release.digest)
