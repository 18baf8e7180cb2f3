"""Jinja for pages that people read: HTML and Markdown, in which every character of a value can be seen."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tunebuild import resources
from tunebuild.printable import printable


def page_environment(folder: str, *, html: bool, trim: bool = True) -> Environment:
    """Jinja for a folder of ``templates/``.

    Args:
        folder: its name.
        html: whether values are escaped for HTML. For Markdown, templates have filters of their own.
        trim: whether a line that holds a statement alone leaves nothing behind.
    """
    return Environment(
        loader=FileSystemLoader(resources.path("templates", folder)),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=trim,
        lstrip_blocks=trim,
        autoescape=html,  # noqa: S701 - what is not HTML is Markdown
        finalize=_visible,
    )


def _visible(value: Any) -> Any:
    if isinstance(value, Markup):  # what a macro made, of values that were here before
        return value
    return printable(value) if isinstance(value, str) else value
