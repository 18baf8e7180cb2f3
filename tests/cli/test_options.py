"""Options that several verbs share."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from tunebuild.cli import app
from tunebuild.cli._options import runtime_option

_VERBS = ("run", "chat", "verify", "load")


@click.command()
@runtime_option(["auto", "docker"], "Which.")
def _command(runtime: str) -> None:
    click.echo(runtime)


@pytest.mark.parametrize(
    ("given", "meant"),
    [((), "auto"), (("--runtime", "docker"), "docker"), (("--engine", "docker"), "docker")],
)
def test_the_runtime_may_be_given_under_its_former_name(given: tuple[str, ...], meant: str) -> None:
    assert CliRunner().invoke(_command, given).output == f"{meant}\n"


@pytest.mark.parametrize("name", ["--runtime", "--engine"])
def test_a_runtime_that_there_is_none_of_is_refused_under_todays_name(name: str) -> None:
    done = CliRunner().invoke(_command, [name, "lxc"])
    assert done.exit_code == 2
    assert "Invalid value for '--runtime'" in done.output


@pytest.mark.parametrize("verb", _VERBS)
def test_help_names_the_runtime_only(verb: str) -> None:
    text = CliRunner().invoke(app, [verb, "--help"]).output
    assert "--runtime" in text
    assert "--engine" not in text
