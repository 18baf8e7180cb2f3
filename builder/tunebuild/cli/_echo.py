"""Where the verbs print. What they print may come from anywhere, so it is made visible first."""

from __future__ import annotations

import sys
from typing import Any

import click

from tunebuild.printable import printable, printable_json


def echo(text: object = "", *, head: str = "", err: bool = False, nl: bool = True) -> None:
    """Print text for people.

    Args:
        text: anything; controls and marks in it are spelled out.
        head: stands before it as it is, for a word of our own that has a color.
        err: whether on stderr.
        nl: whether to end the line.
    """
    click.echo(head + printable(str(text)), err=err, nl=nl)


def echo_json(value: Any) -> None:
    """Print a value on stdout as JSON, for machines and for the people who look at it."""
    click.echo(printable_json(value, indent=2))


def survive_any_text() -> None:
    """Have both streams spell out what their encoding lacks, so that no name or row ends a command."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
