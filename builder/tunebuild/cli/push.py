"""``tunebuild push``."""

from __future__ import annotations

from pathlib import Path

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import lock_option, refuse_spec_options, set_option, store_option
from tunebuild.cli._registry import registry_options, sign_option
from tunebuild.errors import fail


@click.command("push")
@click.argument("source", metavar="SPEC|ARCHIVE", type=click.Path(path_type=Path))
@click.argument("reference", metavar="[REF]", required=False)
@registry_options
@click.option(
    "--mount-from",
    "mounts",
    multiple=True,
    metavar="REPOSITORY",
    help="Another repository of the same registry that may have layers already. May be repeated.",
)
@click.option(
    "--parallel", type=click.IntRange(1, 32), default=4, show_default=True, help="Uploads at a time."
)
@sign_option
@click.option("--no-attestations", is_flag=True, help="Push the outputs without SBOM and provenance.")
@set_option
@lock_option
@store_option
def command(
    source: Path,
    reference: str | None,
    plain_http: bool,
    ca_file: Path | None,
    mounts: tuple[str, ...],
    parallel: int,
    sign_key: Path | None,
    no_attestations: bool,
    overrides: tuple[str, ...],
    lock_file: Path | None,
    store: Path,
) -> None:
    """Push an image to a registry: straight from the store for a SPEC, or from an ARCHIVE or OCI layout.

    Needs no container runtime and no root. What the registry has is not sent again. REF is the name to push
    to, by default the image's own. Prints REF with the digest, which is the one that 'build' printed.
    Credentials are those of 'docker login' and 'podman login'.

    SBOMs (CycloneDX, SPDX) and SLSA provenance of a SPEC go with it as OCI 1.1 referrers, as do those of a
    bundle. With --sign-key, each output and the provenance are signed in cosign's format.
    """
    from tunebuild.extras import require

    stored = source.suffix == ".tar" or source.is_dir()
    require("image" if stored else "train", what=f"'push' of {'an archive' if stored else 'a spec'}")
    from tunebuild.cli._progress import Reporter
    from tunebuild.cli._publishing import publish
    from tunebuild.image.oci.reference import ImageReference
    from tunebuild.publish.memory import PushMemory
    from tunebuild.publish.registry import RegistryPublisher
    from tunebuild.publish.stored import release_of
    from tunebuild.publish.trust.attach import signed
    from tunebuild.publish.trust.signing import Signer
    from tunebuild.registry import Options, Registries

    signer = Signer.load(sign_key) if sign_key else None
    wanted = ImageReference.parse(reference) if reference else None
    if wanted is not None and wanted.digest:
        raise fail("bad-image-reference", f"{reference} names a digest", "name a tag: the digest follows")
    if stored:
        refuse_spec_options(source, overrides, lock_file)
        release, named = release_of(source)
        release = signed(release, signer) if signer else release
    else:
        from tunebuild.build.release import release_of_build
        from tunebuild.cli._building import build_spec

        built = build_spec(source, store, overrides, lock_file=lock_file)
        release = release_of_build(built, signer, attest=not no_attestations)
        named = built.image.reference
    target = wanted or named
    if target is None or target.full_name.startswith("docker.io/library/"):
        shown = f"{target} names no registry" if target else f"{source} does not say what it is called"
        hint = "give REF, e.g. registry.example.com/team/name:tag, or set image.repository in the spec"
        raise fail("no-registry", shown, hint, path="" if wanted else "image.repository")
    host, name = target.registry, target.path
    repository = Registries(Options.of_machine(plain_http=plain_http, ca_file=ca_file)).repository(host, name)
    memory = PushMemory(store / "pushed.json")
    publisher = RegistryPublisher(repository, target, memory, mounts, parallel)
    with Reporter() as reporter:
        publish(release, [publisher], reporter)
    echo(f"{target.full_name.partition('@')[0].rpartition(':')[0]}:{target.tag}@{release.digest}")
