"""The report and the model card in a folder beside what was built."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunebuild.report.facts import Records
from tunebuild.report.render import CARD, REPORT, render_report
from tunebuild.store import Tree

# Not the report's own name: that one belongs to the image beside it, which stays.
_REFUSED = "refused.html"


def reports_beside(output: Path) -> Path:
    """The folder for report and card; a version at the end of a directory's name is no ending."""
    return output.with_name(f"{output.name.removesuffix('.tar')}-report")


def write_reports(settings: Tree, folder: Path) -> tuple[Path, ...]:
    """Copy report and card of an image stage's output; their paths. An older refusal is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _REFUSED).unlink(missing_ok=True)
    return tuple(
        Path(shutil.copyfile(settings.path("build", name), folder / name)) for name in (REPORT, CARD)
    )


def write_refused(records: Records, provenance: dict[str, Any], folder: Path) -> Path:
    """Write the report of a build that a gate refused; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _REFUSED
    path.write_text(render_report(records.read(), provenance), "utf-8")
    return path
