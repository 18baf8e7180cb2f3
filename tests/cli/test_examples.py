"""Every verb's help ends with two examples, and the examples are commands that parse."""

from __future__ import annotations

import shlex

import click
import pytest
from click.testing import CliRunner

from tunebuild.cli import app
from tunebuild.cli._examples import EXAMPLES


def test_every_verb_has_examples():
    assert set(EXAMPLES) == set(app.verbs)


@pytest.mark.parametrize("verb", EXAMPLES)
def test_help_ends_with_two_examples(verb):
    shown = CliRunner().invoke(app, [verb, "--help"])
    assert shown.exit_code == 0, shown.output
    last = [line.strip() for line in shown.output.rstrip().splitlines()[-4:]]
    assert last[1::2] == [f"tunebuild {example}" for example, _ in EXAMPLES[verb]]
    assert all(line.startswith("# ") for line in last[::2])


@pytest.mark.parametrize("example", [e for pair in EXAMPLES.values() for e, _ in pair])
def test_examples_parse(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verb, *arguments = shlex.split(example)
    for key in (a for a in arguments if a.endswith((".pem", ".pub"))):
        (tmp_path / key).touch()  # options that read a key check that its file is there
    command = app.get_command(click.Context(app), verb)
    context = command.make_context(verb, arguments)
    if isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, arguments)
        found.make_context(name, rest, parent=context)
