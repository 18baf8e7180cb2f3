"""What every importer is: one object for each tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tunebuild.importers.work import Defaults, Setting, Work


class Importer(Protocol):
    """Reads one tool's configurations."""

    name: str
    """As ``--from`` takes it."""

    title: str
    """As people call the tool."""

    required: frozenset[str]
    """Keys that each of its configurations has."""

    keys: frozenset[str]
    """Keys by which its configurations are told from those of others."""

    def complete(self, value: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
        """The configuration with what stands in other files beside it."""
        ...

    def defaults(self, value: Mapping[str, Any]) -> Defaults:
        """What the tool does where a configuration is silent."""
        ...

    def settings(self, value: Mapping[str, Any]) -> Sequence[Setting]:
        """Its training settings under the names of :mod:`tunebuild.spec.foreign`."""
        ...

    def carry(self, work: Work) -> None:
        """Carry over what only this tool has: model, rows, template and kind of adapter.

        What it leaves open is settled by what all tools share.

        Raises:
            TunebuildError: if the configuration asks for something that is no fine-tuning on answers.
        """
        ...
