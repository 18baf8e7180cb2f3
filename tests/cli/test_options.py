"""Options that several verbs share."""

from __future__ import annotations

from itertools import product

import click
import pytest
from click.testing import CliRunner

from tunebuild.cli import app, main
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


_SET, _LOCK = ("--set", "tuning.epochs=1"), ("--lock", "spec.lock")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        *product((("push", "x.tar"), ("load", "x.tar"), ("chat", "http://127.0.0.1:9")), (_SET, _LOCK)),
        (("deploy", "x.tar", "--to", "compose"), _SET),
    ],
)
def test_options_of_a_spec_are_refused_where_there_is_none(words, option, capsys, monkeypatch) -> None:
    monkeypatch.setattr("tunebuild.containers.find.find_container_runtime", lambda _: None)
    monkeypatch.setattr("sys.argv", ["tunebuild", *words, *option])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert f"{option[0]} belongs to a spec, and {words[1]} is none" in capsys.readouterr().err
