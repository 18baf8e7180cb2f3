"""``tunebuild build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import lock_option, set_option, spec_argument, store_option

if TYPE_CHECKING:
    from tunebuild.build.pipeline import Pipeline
    from tunebuild.build.run import Built
    from tunebuild.containers.runtime import ContainerRuntime
    from tunebuild.publish.release import Publisher
    from tunebuild.report.facts import Records


@click.command("build")
@spec_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Archive to write, or a directory for an OCI layout, where an edit writes only what changed.  "
    "[default: dist/NAME.tar beside SPEC]",
)
@click.option(
    "--builder",
    type=click.Choice(["oci", "docker"]),
    default="oci",
    show_default=True,
    help="Who assembles the image: tunebuild itself, or Docker from the rendered Dockerfile.",
)
@click.option("--load", is_flag=True, help="Give the image to the container runtime as well.")
@click.option("--locked", is_flag=True, help="Refuse to build anything that the lock file does not name.")
@set_option
@lock_option
@store_option
def command(
    spec: Path,
    output: Path | None,
    builder: str,
    load: bool,
    locked: bool,
    overrides: tuple[str, ...],
    lock_file: Path | None,
    store: Path,
) -> None:
    """Build SPEC: train, merge, assemble. Only what changed since the last build is done again.

    Prints the image's digest on stdout and nothing else; progress goes to stderr. The archive is an OCI
    layout and a docker-archive at once: 'docker load -i', 'podman load -i' and 'skopeo copy oci-archive:'
    all take it. An output without the ending .tar is a directory, an OCI layout. The report and the model
    card are in the image, and in a folder beside it whose name ends with -report; refused.html there is the
    report of a build that a gate refused. With --builder docker the image is left in Docker and its ID is
    printed.
    """
    from tunebuild.cli._building import build_spec
    from tunebuild.cli._progress import Reporter
    from tunebuild.cli._publishing import publish
    from tunebuild.containers.find import find_container_runtime
    from tunebuild.image.oci.content import Content
    from tunebuild.publish.release import Release
    from tunebuild.report.folder import reports_beside, write_refused, write_reports

    def place(name: str) -> Path:
        return output or spec.parent / "dist" / f"{name}.tar"

    def refused(pipeline: Pipeline, records: Records) -> None:
        path = write_refused(records, pipeline.provenance, reports_beside(place(pipeline.spec.name)))
        echo(f"  report   {path} shows what the gates refused", err=True)

    runtime = find_container_runtime() if load and builder == "oci" else None
    built = build_spec(spec, store, overrides, lock_file=lock_file, locked=locked, refused=refused)
    target = place(built.parts.settings.name)
    release = Release((Content.of_image(built.image),))
    with Reporter() as reporter:
        published = publish(release, _publishers(built, builder, target, runtime), reporter)
        if builder == "oci":
            report, card = write_reports(built.settings, reports_beside(target))
            reporter("report").say(f"{report}, {card.name} beside it")
    if not built.ran:
        echo("nothing changed", err=True)
    echo(published[0].digest)


def _publishers(
    built: Built, builder: str, target: Path, runtime: ContainerRuntime | None
) -> tuple[Publisher, ...]:
    from tunebuild.publish.docker_build import DockerBuildPublisher
    from tunebuild.publish.path import publisher_to
    from tunebuild.publish.runtime import RuntimePublisher

    if builder == "docker":  # which has the image then
        return (DockerBuildPublisher(built.plan),)
    name = built.image.reference
    return (publisher_to(target, name), *((RuntimePublisher(runtime, name),) if runtime else ()))
