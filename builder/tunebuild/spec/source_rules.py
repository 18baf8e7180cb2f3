"""Rules of one source of rows: it is there, its keys belong together, and some row can be meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tunebuild.errors import Diagnostic
from tunebuild.spec.data import Condition, DataSource
from tunebuild.spec.endings import ENDINGS, ENDINGS_SHOWN
from tunebuild.spec.folder import Folder
from tunebuild.spec.words import suggest

#: What a repository on the hub is called.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

# The columns of the formats, those that a row may have besides included.
_COLUMNS = {
    "qa": ("question", "answer", "system", "history"),
    "alpaca": ("instruction", "input", "output", "system", "history"),
    "messages": ("messages", "system", "tools"),
    "sharegpt": ("conversations", "system", "tools"),
    "prompt_completion": ("prompt", "completion", "system", "history"),
    "text": ("text",),
}

#: A rule: the source, its path in the spec, and the spec's directory in; diagnostics without positions out.
SourceRule = Callable[[DataSource, str, Folder], Iterator[Diagnostic]]


def exists_inside(name: str, path: str, directory: Folder) -> Iterator[Diagnostic]:
    """A named file is there, and inside the spec's directory so that the repository is complete."""
    file = directory / name
    if not directory.holds(name):
        yield Diagnostic(
            "outside", f"'{name}' is outside the spec's directory", "copy it beside the spec", path
        )
    elif not file.is_file():
        yield Diagnostic("no-file", f"there is no file '{name}'", f"looked for {file}", path)


def files_exist(source: DataSource, path: str, directory: Folder) -> Iterator[Diagnostic]:
    """The files of a source that is beside the spec are there."""
    if source.hub is None:
        for name in source.files(directory.path) or ([source.path] if source.path else []):
            yield from exists_inside(name, f"{path}.path", directory)


def files_can_be_read(source: DataSource, path: str, directory: Folder) -> Iterator[Diagnostic]:
    """There is a reader for files of these names."""
    named = [source.path] if source.path else []
    for name in source.files(directory.path) if source.hub is None else named:
        if not name.lower().endswith(ENDINGS):
            message = f"cannot read '{name}'"
            yield Diagnostic("no-reader", message, f"use one of {ENDINGS_SHOWN}", f"{path}.path")


def hub_is_named_well(source: DataSource, path: str, directory: Folder) -> Iterator[Diagnostic]:
    """Rows come from a repository with an id, and only such rows have a revision and a token."""
    if source.hub is not None and not HUB_ID.fullmatch(source.hub):
        yield Diagnostic("bad-hub", f"'{source.hub}' is not a hub id such as org/name", "", f"{path}.hub")
    if source.path is None and source.split is None:
        message = "names no rows" if source.hub is None else "names neither a file nor a split"
        yield Diagnostic("no-path", message, "give it a path, or a hub and a split", path)
    if source.path is not None and source.split is not None:
        message = "names a file and a split: only one of them can be meant"
        yield Diagnostic("path-and-split", message, "remove one", f"{path}.split")
    if source.config is not None and source.split is None:
        message = "only a split has a configuration"
        yield Diagnostic("config-alone", message, "name the split", f"{path}.config")
    for name in ("revision", "token", "split", "config"):
        if source.hub is None and getattr(source, name) is not None:
            message = f"a file beside the spec has no {name}"
            yield Diagnostic("not-hub", message, "remove it, or name its hub", f"{path}.{name}")


def conditions_can_hold(source: DataSource, path: str, directory: Folder) -> Iterator[Diagnostic]:
    """A condition says something, is a regular expression where it should be one, and some value meets it."""
    for column, wanted in source.where.items():
        here = f"{path}.where.{column}"
        if not isinstance(wanted, Condition):
            continue
        if not wanted.model_fields_set:
            yield Diagnostic("condition", "says nothing", "in, not, min, max or matches", here)
        if wanted.min is not None and wanted.max is not None and wanted.min > wanted.max:
            message = f"nothing is at least {wanted.min:g} and at most {wanted.max:g}"
            yield Diagnostic("condition", message, "", f"{here}.min")
        try:
            re.compile(wanted.matches or "")
        except (re.error, RecursionError, OverflowError) as error:
            message = f"is no regular expression: {error}"
            yield Diagnostic("condition", message, "see Python's re module", f"{here}.matches")


def columns_belong(source: DataSource, path: str, directory: Folder) -> Iterator[Diagnostic]:
    """A format that is named has the columns that are mapped to it."""
    known = _COLUMNS.get(source.format, ())
    for name in source.columns:
        if known and name not in known:
            hint = suggest(name, known) or f"it has: {', '.join(known)}"
            message = f"format '{source.format}' has no column '{name}'"
            yield Diagnostic("unknown-column", message, hint, f"{path}.columns.{name}")


SOURCE_RULES: tuple[SourceRule, ...] = (
    files_exist,
    files_can_be_read,
    hub_is_named_well,
    conditions_can_hold,
    columns_belong,
)
