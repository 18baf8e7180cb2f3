"""``tunebuild build``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import set_option, spec_argument, store_option

if TYPE_CHECKING:
    from tunebuild.build.pipeline import Pipeline
    from tunebuild.report.facts import Records

# Not the report's own name: that one belongs to the image beside it, which stays.
_REFUSED = "refused.html"


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
    help="Who assembles the image: tunebuild itself, or a Docker engine from the rendered Dockerfile.",
)
@click.option("--load", is_flag=True, help="Give the image to the container runtime as well.")
@click.option("--locked", is_flag=True, help="Refuse to build anything that the lock file does not name.")
@set_option
@store_option
def command(
    spec: Path,
    output: Path | None,
    builder: str,
    load: bool,
    locked: bool,
    overrides: tuple[str, ...],
    store: Path,
) -> None:
    """Build SPEC: train, merge, assemble. Only what changed since the last build is done again.

    Prints the image's digest on stdout and nothing else; progress goes to stderr. The archive is an OCI
    layout and a docker-archive at once: 'docker load -i', 'podman load -i' and 'skopeo copy oci-archive:'
    all take it. An output without the ending .tar is a directory, an OCI layout. The report and the model
    card are in the image, and in a folder beside it whose name ends with -report; refused.html there is the
    report of a build that a gate refused. With --builder docker the image is left in the engine and its id is
    printed.
    """
    from tunebuild.cli._building import build_spec
    from tunebuild.cli._progress import Reporter

    def refused(pipeline: Pipeline, records: Records) -> None:
        from tunebuild.report.render import render_report

        path = reports_beside(output or archive_of(spec, pipeline.spec.name)) / _REFUSED
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_report(records.read(), pipeline.provenance), "utf-8")
        echo(f"  report   {path} shows what the gates refused", err=True)

    built = build_spec(spec, store, overrides, locked=locked, refused=refused)
    with Reporter() as reporter:
        if builder == "docker":
            from tunebuild.containers.docker_build import build_with_docker

            echo(build_with_docker(built.plan, reporter("docker")))
            return
        from tunebuild.image.oci.archive import write_archive, write_layout
        from tunebuild.image.oci.reading import holds
        from tunebuild.report.render import CARD, REPORT

        archive = output or archive_of(spec, built.parts.settings.name)
        progress = reporter("archive")
        if holds(archive, built.image):
            progress.say(f"{archive} is up to date")
        else:
            write = write_archive if archive.suffix == ".tar" else write_layout
            write(built.image, archive, progress)
            progress.say(f"{archive}, {built.image.size / 1e6:,.1f} MB")
        reports = reports_beside(archive)
        reports.mkdir(exist_ok=True)
        (reports / _REFUSED).unlink(missing_ok=True)
        for name in (REPORT, CARD):
            shutil.copyfile(built.settings.path("build", name), reports / name)
        reporter("report").say(f"{reports / REPORT}, {CARD} beside it")
        if load:
            from tunebuild.containers.find import find_container_runtime

            engine = find_container_runtime()
            report = engine.load(built.image, reporter("load"))
            reporter("load").say(
                f"{built.image.reference.full_name} in {engine.name}, {report.sent / 1e6:,.1f} MB sent"
            )
            if report.replaced:
                from tunebuild.cli.load import replaced_text

                reporter("load").say(replaced_text(built.image.reference.full_name, report.replaced))
    if not built.ran:
        echo("nothing changed", err=True)
    echo(built.image.digest)


def archive_of(spec: Path, name: str) -> Path:
    """What is written where no output is named."""
    return spec.parent / "dist" / f"{name}.tar"


def reports_beside(archive: Path) -> Path:
    """The folder for report and card; a version at the end of a directory's name is no ending."""
    return archive.with_name(f"{archive.name.removesuffix('.tar')}-report")
