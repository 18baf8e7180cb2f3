"""``tunebuild import``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from tunebuild.cli._echo import echo, echo_json
from tunebuild.cli._options import NEW_FILE
from tunebuild.errors import TunebuildError, fail
from tunebuild.importers import IMPORTERS, import_config
from tunebuild.importers.ledger import Outcome
from tunebuild.importers.result import Imported

_ATTENTION = 2


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "-o", "--output", type=NEW_FILE, help="Write the spec there, where no file is yet.  [default: stdout]"
)
@click.option(
    "--from",
    "tool",
    type=click.Choice([importer.name for importer in IMPORTERS]),
    help="The tool whose configuration FILE is.  [default: told from its keys]",
)
@click.option("--json", "as_json", is_flag=True, help="Print spec and lists as JSON.")
def command(file: Path, output: Path | None, tool: str | None, as_json: bool) -> None:
    """Turn another tool's configuration into a spec, and list what could not be carried over.

    FILE is YAML of axolotl, LLaMA-Factory, AIKit or TRL, or a script or notebook that uses Unsloth, which is
    read and never run. Every key of it ends in one of three lists, printed on stderr: carried, the same
    anyway, or not carried, with the consequence and what to do.

    Exit 0 if all was carried, 2 if something needs attention, 1 on an error.
    """
    from tunebuild.image.oci.archive import explained

    if output is not None and output.exists():
        raise fail("exists", f"{output} is there already", "name a new file, or move it")
    imported = import_config(file, tool, output)
    if output is not None:
        with explained(output):
            output.write_text(imported.spec, "utf-8")
    if as_json:
        echo_json(imported.as_json())
    elif output is None:
        echo(imported.spec, nl=False)
    if not as_json:
        for line in _report(imported):
            echo(line, err=True)
        if output is not None:
            echo(f"wrote {output}; next: tunebuild validate {output}", err=True)
    if imported.attention:
        raise TunebuildError((), exit_code=_ATTENTION)


def _report(imported: Imported) -> Iterator[str]:
    yield f"{imported.source}: {imported.tool}, {len(imported.keys)} keys"
    if carried := imported.of("carried"):
        yield f"carried ({len(carried)}):"
        for keys, outcome in _grouped(carried):
            remark = f" ({outcome.text})" if outcome.text else ""
            yield f"  {keys} -> {outcome.path}{remark}"
    if same := imported.of("same"):
        yield f"the same anyway ({len(same)}):"
        for keys, outcome in _grouped(same):
            yield f"  {keys}: {outcome.text}"
    if lost := imported.of("lost"):
        yield f"not carried ({len(lost)}):"
        for keys, outcome in _grouped(lost):
            yield f"  {keys}: {outcome.text}"
            yield f"      {outcome.todo}"
    if imported.notices:
        yield "besides:"
        for notice in imported.notices:
            yield f"  {'! ' if notice.attention else ''}{notice.text}"


def _grouped(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, Outcome]]:
    """Keys of which the same is said, together."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.path, outcome.text, outcome.todo), []).append(outcome)
    for group in groups.values():
        yield ", ".join(outcome.key for outcome in group), group[0]
