"""``tunebuild data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunebuild.cli._echo import echo
from tunebuild.cli._options import NEW_FILE, lock_option, set_option, spec_argument, store_option
from tunebuild.grammar import counted
from tunebuild.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from tunebuild.data.view import DataView

_BAR = 40
_FINDINGS = 20


@click.command("data")
@spec_argument
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Rows to show of each source.",
)
@click.option("--held-out", is_flag=True, help="Show rows that are held out instead of those trained on.")
@click.option(
    "--html",
    type=NEW_FILE,
    help="Write a page with plots and rejected rows instead of printing.",
)
@set_option
@lock_option
@store_option
def command(
    spec: Path,
    samples: int,
    held_out: bool,
    html: Path | None,
    overrides: tuple[str, ...],
    lock_file: Path | None,
    store: Path,
) -> None:
    """Show the rows of SPEC as the model gets them.

    Samples of every source are printed with their control tokens; supervised tokens are green, or stand
    between ⟦ and ⟧ where there are no colors. Secrets and personal data in them are masked. Rows that are
    not used are counted by their reason, with the first of each; so are keys and columns of rows that no
    prompt shows.

    The rows are really read and tokenized, and kept for the build.
    """
    from rich.console import Console

    from tunebuild.cli._pipeline import pipeline_of, placed
    from tunebuild.cli._progress import Reporter
    from tunebuild.data.view import as_html, view_data

    pipeline = pipeline_of(spec, store, overrides, lock_file=lock_file)
    with placed(pipeline), Reporter() as reporter:
        output = pipeline.store.ensure(pipeline.data(), reporter("data"))
        pipeline.store.note_use(pipeline.data(), pipeline.spec.name)
    part = "eval" if held_out else "train"
    names = [source.shown for source in pipeline.data().sources]
    view = view_data(output, pipeline.renderer.tokenizer, part, samples, names)
    if html is None:
        _print(view, Console(highlight=False, soft_wrap=True))
        return
    html.write_text(as_html(view, pipeline.spec.name), "utf-8")
    echo(f"{html}: {counted(len(view.samples), 'row')}", err=True)


def _print(view: DataView, console: Console) -> None:
    from rich.text import Text

    stats = view.stats
    rows, length = stats["rows"], stats["length"]
    console.print(
        f"{counted(rows['train'], 'row')} to train on, {rows['eval']:,} held out, "
        f"{rows['rejected']:,} not used"
    )
    for reason, count in stats["rejected"].items():
        console.print(f"  {count:>8,} {reason}")
        for reject in view.unused[reason]:
            line = f"{'':11}{reject['file']}:{reject['line']}: {reject['reason']}"
            console.print(printable(line), markup=False)
    if len(view.sources) > 1:
        for name, train, held in view.sources:
            console.print(f"  {printable(name)}: {train:,} to train on, {held:,} held out", markup=False)
    if view.unused:
        console.print(f"  all of them, with how they begin: {printable(str(view.all_unused))}", markup=False)
    if view.unshown:
        console.print("not in any prompt:")
    for line in view.unshown:
        console.print(f"  {printable(line)}", markup=False)
    if view.findings:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in stats["found"].items())
        console.print(f"found in rows: {kinds}")
    for finding in view.findings[:_FINDINGS]:
        place = f"{finding['file']}:{finding['line']}"
        line = f"  {place}: {finding['kind']} {finding['excerpt']}, {finding['outcome']}"
        console.print(printable(line), markup=False)
    console.print(
        f"{stats['tokens']:,} tokens, {stats['supervised_share']:.0%} supervised; a row has ", end=""
    )
    console.print(
        f"{length['min']} to {length['max']}, median {length['median']}, 95 % up to {length['p95']}"
    )
    most = max(bar["rows"] for bar in stats["histogram"])
    for bar in stats["histogram"]:
        drawn = "█" * -(-_BAR * bar["rows"] // most)
        console.print(f"  {bar['low']:>6}-{bar['high']:<6} {drawn} {bar['rows']:,}", markup=False)
    for sample in view.samples:
        console.print(
            f"\n── {printable(sample.source)}, row {sample.number}: "
            f"{counted(sample.tokens, 'token')}, {sample.supervised:,} supervised",
            style="bold",
            markup=False,
        )
        text, before = Text(), "given"
        for piece in sample.pieces:
            if console.color_system is None and piece.kind != before:
                text.append("⟦" if piece.kind == "supervised" else "⟧")
            before = piece.kind
            style = "magenta" if piece.control else "green" if piece.kind == "supervised" else ""
            text.append(printable(piece.text), "bold " + style if piece.kind == "supervised" else style)
        if console.color_system is None and before == "supervised":
            text.append("⟧")
        console.print(text)
