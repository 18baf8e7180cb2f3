"""Runs a spec's exports: a build up to its gates, then each export and its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunebuild.build.pipeline import Pipeline
from tunebuild.build.run import Reporter, ensure, measured
from tunebuild.errors import Diagnostic, TunebuildError, fail
from tunebuild.evaluate.exported import read_exported, require_reader
from tunebuild.evaluate.metrics import REFUSED, check_export_gates, export_figures
from tunebuild.evaluate.stage import read_metrics
from tunebuild.export.folder import Exported, check_folder
from tunebuild.export.tool import find_tool
from tunebuild.grammar import counted
from tunebuild.heavy_imports import heavy_imports
from tunebuild.report.facts import Records
from tunebuild.spec.exports import ExportSpec


def export(
    pipeline: Pipeline,
    reporter: Reporter,
    python: Path | None,
    directory: Path,
    formats: Sequence[str] = (),
) -> tuple[Path, ...]:
    """Write a folder for each export. Runs what has not been run yet of what comes before.

    Args:
        pipeline: the spec's stages.
        reporter: makes each stage's progress.
        python: the interpreter of what quantizes; ``None`` if nobody named one.
        directory: gets the folders.
        formats: only exports of these; all if empty.

    Returns:
        The folders.

    Raises:
        TunebuildError: what a stage cannot do; with exit status 3, every figure of every export that is
            beyond its limit, and then nothing is written.
    """
    chosen = _chosen(pipeline, formats)
    tool = find_tool(python)
    require_reader()
    for path, one in chosen:
        check_folder(directory / one.name)
        _check_layers(pipeline, path, one)
    records = measured(pipeline, reporter)
    before = export_figures(read_metrics(records.evaluate))
    made: list[Exported] = []
    problems: list[Diagnostic] = []
    for path, one in chosen:
        model = ensure(pipeline, reporter, pipeline.export(one, records, tool))
        found = read_exported(ensure(pipeline, reporter, pipeline.exported(one, records, model)))
        made.append(Exported(one, model, found["metrics"], before, found["rows"], found["of"], tool))
        try:
            check_export_gates(one.gates, found["metrics"], f"{path}.gates")
        except TunebuildError as error:
            problems += error.diagnostics
    if problems:
        raise TunebuildError(tuple(problems), REFUSED)
    return tuple(_write(pipeline, reporter, one, records, directory) for one in made)


def _chosen(pipeline: Pipeline, formats: Sequence[str]) -> list[tuple[str, ExportSpec]]:
    """The exports that are wanted, with their paths in the spec."""
    numbered = ((f"exports[{number}]", one) for number, one in enumerate(pipeline.spec.exports))
    chosen = [(path, one) for path, one in numbered if not formats or one.format in formats]
    if not chosen:
        what = f"no export of the format {' or '.join(formats)}" if formats else "no exports"
        hint = f"add exports: [{{format: {formats[0] if formats else 'gptq'}}}]"
        raise fail("no-exports", f"the spec asks for {what}", hint, path="exports")
    return chosen


def _check_layers(pipeline: Pipeline, path: str, export: ExportSpec) -> None:
    with heavy_imports():
        from tunebuild.export.layers import check_layers

    check_layers(pipeline.base.directory, export.group_size, path)


def _write(
    pipeline: Pipeline, reporter: Reporter, exported: Exported, records: Records, directory: Path
) -> Path:
    with heavy_imports():
        from tunebuild.export.write import write_folder

    progress, folder = reporter("folder"), directory / exported.export.name
    template = write_folder(exported, records, pipeline.provenance, pipeline.settings, folder)
    if template.differs is None:
        prompts = f"its chat template gives {counted(template.reproduced, 'golden prompt')}"
    else:
        prompts = f"without a chat template: transformers renders '{template.differs}' differently"
    progress.say(f"{folder}, {exported.size / 1e6:,.1f} MB; {prompts}")
    return folder
