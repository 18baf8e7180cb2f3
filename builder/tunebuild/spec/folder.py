"""Where a spec's relative paths lead: its own directory, and those of the specs that it extends."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Folder:
    """A spec's directory.

    Attributes:
        path: the directory of the spec that is built.
        others: the directories of what it extends, whose files it may use, too.
    """

    path: Path
    others: tuple[Path, ...] = ()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def holds(self, name: str, *, follow: bool = True) -> bool:
        """Whether a path leads into one of the directories; with ``follow``, once links are followed."""
        file = Path(os.path.normpath(self.path / name))
        inside = [*(root.resolve() for root in self.roots)] if follow else self.roots
        place = (self.path / name).resolve() if follow else file
        return any(place.is_relative_to(root) for root in inside)

    @property
    def roots(self) -> tuple[Path, ...]:
        """All of the directories."""
        return tuple(Path(os.path.normpath(path)) for path in (self.path, *self.others))
