"""``tunebuild export``."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import lock_option, set_option, spec_argument, store_option
from tunebuild.spec.exports import ExportSpec

_FORMATS = get_args(ExportSpec.model_fields["format"].annotation)


def _print_requirements(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from tunebuild.export.tool import requirements

        echo(requirements())
        context.exit()


@click.command("export")
@spec_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Directory that gets a folder for each export, e.g. DIR/gptq-w4a16-g128.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(_FORMATS),
    multiple=True,
    help="Only the exports of this format. May be repeated.  [default: all that SPEC lists]",
)
@click.option(
    "--python",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Interpreter of the environment that has llm-compressor.",
)
@click.option(
    "--requirements",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_requirements,
    help="Print the path of what pip installs there, and do nothing else.",
)
@click.option("--locked", is_flag=True, help="Refuse to use anything that the lock file does not name.")
@set_option
@lock_option
@store_option
def command(
    spec: Path,
    output: Path,
    formats: tuple[str, ...],
    python: Path | None,
    locked: bool,
    overrides: tuple[str, ...],
    lock_file: Path | None,
    store: Path,
) -> None:
    """Write what SPEC lists under 'exports': the tuned model in fewer bits, for vLLM and transformers.

    Runs what a build runs up to its gates, as far as it is not done yet, then quantizes the merged
    weights, calibrated on training rows. The files are then read back and held against the trained model
    on the same rows as the build's; an export beyond a limit in 'exports[].gates' ends with status 3, and
    nothing is written. A folder holds weights, configuration, tokenizer, chat template, the prompt
    contract, a model card, and figures and digests in export.json. Prints the folders on stdout.

    llm-compressor needs other versions of libraries than training does, so it has an environment of its
    own, made once:

    \b
        python3 -m venv exporter
        exporter/bin/pip install -r "$(tunebuild export --requirements)"
        tunebuild export SPEC -o exports --python exporter/bin/python

    Reading exports back needs 'tunebuild[export]' beside the rest.

    Exit 0 if all are written, 3 if a gate refuses the build or an export, 1 on an error.
    """
    from tunebuild.build.export import export
    from tunebuild.cli._building import opened

    with opened(spec, store, overrides, lock_file=lock_file, locked=locked) as (pipeline, reporter):
        folders = export(pipeline, reporter, python, output, formats)
    for folder in folders:
        echo(folder)
