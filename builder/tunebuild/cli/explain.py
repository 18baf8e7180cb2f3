"""``tunebuild explain``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tunebuild.cli._echo import echo, echo_json
from tunebuild.cli._options import NEW_FILE
from tunebuild.errors import fail
from tunebuild.printable import printable_json


@click.command("explain")
@click.argument("image")
@click.option("--full", is_flag=True, help="Print the whole spec, and what each stage depends on.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--spec", "spec_only", is_flag=True, help="Print the spec only, ready to be built again.")
@click.option("--report", type=NEW_FILE, help="Write the image's report, an HTML page, to this file.")
@click.option(
    "--answers",
    type=click.IntRange(1),
    metavar="N",
    help="Print N held-out questions, with the answers of base and tuned model, only.",
)
@click.option("--card", is_flag=True, help="Print the model card only.")
def command(
    image: str,
    full: bool,
    as_json: bool,
    spec_only: bool,
    report: Path | None,
    answers: int | None,
    card: bool,
) -> None:
    """Tell what IMAGE was built from: an archive, an OCI layout, or the name of an image in Docker or Podman.

    Prints a summary; with --full the effective spec and what each stage depends on: digests of rows and
    weights, the prompt, libraries, packages. Nothing is started. More about the build's figures is in its
    report and its model card.
    """
    from tunebuild.containers.provenance import (
        find_record,
        identity_of,
        is_file,
        read_provenance,
        read_record,
    )
    from tunebuild.report.render import CARD, REPORT
    from tunebuild.report.summary import FIGURES, as_text
    from tunebuild.spec import Spec
    from tunebuild.spec.canonical import canonical_yaml

    if report is not None:
        report.write_bytes(read_record(image, REPORT))
    if card:
        echo(read_record(image, CARD).decode(), nl=False)
    if answers is not None:
        _print_answers(image, answers)
    if report is not None or card or answers is not None:
        return
    found = read_provenance(image)
    if as_json:
        echo_json(found)
        return
    if not (full or spec_only):
        record = find_record(image, FIGURES)
        figures = None if record is None else json.loads(record)
        echo(as_text(found, figures, identity_of(image), image if is_file(image) else ""), nl=False)
        echo("more      --full, --spec, --card, --report FILE or --json")
        return
    echo(canonical_yaml(Spec.model_validate(found["spec"])), nl=False)
    if not spec_only:
        for stage, inputs in found["inputs"].items():
            echo(f"\n# {stage}")
            for line in printable_json(inputs, indent=2).splitlines():
                echo(f"#   {line}")


def _print_answers(image: str, most: int) -> None:
    from tunebuild.containers.provenance import find_record
    from tunebuild.report.answers import as_answers
    from tunebuild.report.summary import FIGURES

    samples = json.loads(find_record(image, FIGURES) or b"{}").get("answers")
    if samples is None:
        message, hint = f"{image} holds no answers: an older tunebuild made it", "--report FILE may have them"
        raise fail("no-answers", message, hint)
    if not samples:
        message = f"no answers were written for {image}"
        raise fail("no-answers", message, "build it with evaluation.samples of 1 or more")
    echo(as_answers(samples, most), nl=False)
