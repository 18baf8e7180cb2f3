"""What an export's folder is made from, and where it may be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunebuild.errors import fail
from tunebuild.export.tool import Tool
from tunebuild.spec.exports import ExportSpec
from tunebuild.store import Tree

RECORD = "export.json"
"""Name of the file of figures and digests; a folder that has one is an export."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that its gates let pass.

    Attributes:
        export: its settings.
        model: the export stage's output.
        figures: of the exported files.
        before: the same figures of the merged ones.
        rows: how many rows they are of.
        of: the file of those rows.
        tool: what made it.
    """

    export: ExportSpec
    model: Tree
    figures: Mapping[str, float]
    before: Mapping[str, float]
    rows: int
    of: str
    tool: Tool

    @property
    def size(self) -> int:
        """Bytes of the model's files."""
        return sum(file.size for file in self.model.files)


def check_folder(folder: Path) -> None:
    """Refuse to write over what is not an export, before there is one.

    Raises:
        TunebuildError: the folder holds something else.
    """
    if folder.exists() and not (folder / RECORD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise fail("not-empty", f"{folder} is there and no export", "remove it, or choose another directory")
