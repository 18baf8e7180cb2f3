"""Lays out the directory that the server reads: settings, prompt and weights.

Only links are made; the files stay where the stages wrote them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunebuild.serve.bundle import Bundle
from tunebuild.store import Tree


@dataclass(frozen=True, slots=True)
class BundleParts:
    """Where a bundle's parts are.

    Attributes:
        settings: becomes ``bundle.json``.
        data: the data stage's output, for ``prompt/``.
        merged: the merge stage's output, for ``model/``.
    """

    settings: Bundle
    data: Tree
    merged: Tree

    def lay_out(self, directory: Path, settings_file: Path) -> None:
        """Make the bundle in an empty directory.

        Args:
            directory: where.
            settings_file: a ``bundle.json`` that outlives the directory, since plans point at it.
        """
        (directory / "bundle.json").symlink_to(settings_file.resolve())
        (directory / "prompt").symlink_to(self.data.path("prompt").resolve())
        (directory / "model").symlink_to(self.merged.path("model").resolve())
