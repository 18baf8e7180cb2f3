"""Options of the verbs that talk to registries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def registry_options(command: _Command) -> _Command:
    """``--plain-http`` and ``--ca-file``."""
    command = click.option(
        "--ca-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Certificates (PEM) of authorities to trust besides the system's.",
    )(command)
    return click.option(
        "--plain-http", is_flag=True, help="Speak HTTP without TLS; for registries on this machine only."
    )(command)


def sign_option(command: _Command) -> _Command:
    """``--sign-key``."""
    return click.option(
        "--sign-key",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Sign with this ECDSA P-256 key (PEM); its password is in TUNEBUILD_KEY_PASSWORD.",
    )(command)
