"""Arguments and options that several verbs share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from tunebuild.errors import fail

spec_argument = click.argument("spec", type=click.Path(path_type=Path), metavar="SPEC")


def default_store() -> Path:
    """``$TUNEBUILD_STORE``, else ``tunebuild`` in the user's cache directory."""
    if chosen := os.environ.get("TUNEBUILD_STORE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunebuild"


store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_store,
    help="Where finished stages are kept.  [default: $TUNEBUILD_STORE or ~/.cache/tunebuild]",
)

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Set a field of SPEC, e.g. --set tuning.epochs=1; null gives it its default. May be repeated.",
)


lock_option = click.option(
    "--lock",
    "lock_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The lock file.  [default: SPEC with the ending .lock, or tunebuild.lock beside SPEC or a base]",
)


def refuse_spec_options(what: object, overrides: Sequence[str], lock_file: Path | None = None) -> None:
    """Refuse ``--set`` and ``--lock`` where what is named is no spec, so that they would do nothing.

    Raises:
        TunebuildError: one of them is given.
    """
    for option, value in (("--set", overrides), ("--lock", lock_file)):
        if value:
            message = f"{option} belongs to a spec, and {what} is none"
            raise fail("no-spec", message, f"leave it out, or give the spec instead of {what}")


class _NewFile(click.Path):
    """A file to write, in a directory that is there."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.parent.is_dir():
            self.fail(f"there is no directory '{path.parent}'", param, ctx)
        return path


NEW_FILE = _NewFile(path_type=Path, dir_okay=False, writable=True)

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class _Bytes(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmgt]?)b?", str(value).lower())
        if not match:
            self.fail(f"{value!r} is not a size such as 24GB", param, ctx)
        count = int(float(match[1]) * _UNITS[match[2]])
        if count and not match[2] and count < 10**6:
            self.fail(f"{value} is only {count} bytes; did you mean {match[1]}GB?", param, ctx)
        return count


SIZE = _Bytes()
"""Bytes, written as ``24GB``: powers of ten, as disks and cards are sold."""


class _RuntimeOption(click.Option):
    """Also takes ``--engine``, as it was called once, and does not speak of that."""

    def __init__(self, declared: Sequence[str], **attributes: Any) -> None:
        super().__init__(declared, **attributes)
        self._shown, self.opts = self.opts, [*self.opts, "--engine"]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """As without the alias."""
        accepted, self.opts = self.opts, self._shown
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = accepted

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """As without the alias."""
        return f"'{self._shown[0]}'"


def runtime_option(choices: Sequence[str], text: str) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """``--runtime``: which container runtime; ``text`` is its help."""
    kind = click.Choice(choices)
    return click.option(
        "--runtime", cls=_RuntimeOption, type=kind, default=choices[0], show_default=True, help=text
    )
