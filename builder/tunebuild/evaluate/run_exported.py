"""Measures an export as the merged files were measured."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any

from tunebuild.evaluate.metrics import export_figures, measure
from tunebuild.evaluate.models import (
    ask,
    ask_base_and_trained,
    choose_rows,
    few_threads,
    load_merged,
    targets,
)
from tunebuild.store import Progress
from tunebuild.train.loop.quiet import quieten_libraries
from tunebuild.train.loop.rows import load_rows

if TYPE_CHECKING:
    from tunebuild.evaluate.exported import ExportedStage


def measure_exported(stage: ExportedStage, rows_file: str, progress: Progress) -> dict[str, Any]:
    """Ask the base, the trained and the exported model the same; one is in memory at a time.

    Raises:
        TunebuildError: the exported files are not a whole model.
    """
    quieten_libraries()
    rows = choose_rows(load_rows(stage.data.path(rows_file)), stage.base.vocabulary_size)
    with few_threads(stage.base):
        progress.step(0, 2, "the trained model")
        base, trained = ask_base_and_trained(
            stage.base, stage.trained, stage.settings, rows, lambda model: ask(model, rows)
        )
        progress.step(1, 2, f"the files of {stage.title}")
        # compressed-tensors draws bars that cannot be turned off; the last comes with the first answer.
        with redirect_stderr(io.StringIO()):
            model = load_merged(stage.exported.path("model"), stage.settings)
            exported = ask(model, rows)
    figures = export_figures(measure(base, trained, exported, targets(rows)))
    progress.say(
        f"{stage.title} against trained: KL {figures['kl']:.2g}, same token {figures['top1']:.1%}; "
        f"loss {figures['eval_loss']:.3f}"
    )
    return {"metrics": figures, "rows": len(rows), "of": rows_file}
