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

    def lay_out(self, directory: Path, settings: Path) -> None:
        """Make the bundle in an empty directory.

        Args:
            directory: where.
            settings: the image stage's output, with ``bundle.json`` and ``build/``. It must outlive the
                directory, since plans point at it.
        """
        (directory / "bundle.json").symlink_to((settings / "bundle.json").resolve())
        (directory / "build").symlink_to((settings / "build").resolve())
        (directory / "prompt").symlink_to(self.data.path("prompt").resolve())
        (directory / "model").symlink_to(self.merged.path("model").resolve())
