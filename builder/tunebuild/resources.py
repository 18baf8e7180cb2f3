"""Finds the files that ship with the package: schema, templates and constraints.

They live at the top of the repository, where users read and edit them. A wheel carries them in
``tunebuild/_resources``; an editable install has them two levels above the package.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def root() -> Path:
    """The directory that holds ``schema/``, ``templates/`` and ``constraints.txt``."""
    shipped = _PACKAGE / "_resources"
    return shipped if shipped.is_dir() else _PACKAGE.parents[1]


def path(*parts: str) -> Path:
    """Path of a shipped file, e.g. ``path("templates", "prompts", "chatml.jinja")``."""
    return root().joinpath(*parts)


def shipped_templates() -> tuple[str, ...]:
    """Names of the prompt templates that ship with tunebuild."""
    return tuple(sorted(p.stem for p in path("templates", "prompts").glob("*.jinja")))
