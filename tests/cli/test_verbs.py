"""What verbs refuse before they do anything, what they leave undone, and how the command is called."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from support.models import save_base
from tunebuild.cli import app
from tunebuild.errors import TunebuildError

SPEC = """\
apiVersion: tunebuild/v1
name: tiny
data: {train: [{path: rows.jsonl, format: qa}]}
model: {base: ./base}
tuning: {nodes: 2, method: lora}
exports: [{format: gptq}]
"""
KUBERNETES = ("--launcher", "kubernetes")


@pytest.fixture
def spec(tmp_path):
    save_base("llama", tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "Why?", "answer": "So."}) + "\n")
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path / "spec.yaml"


def run(verb, spec, *arguments):
    argv = [verb, spec, "--store", spec.parent / "store", *arguments]
    return CliRunner().invoke(app, list(map(str, argv)), standalone_mode=False)


@pytest.mark.parametrize(
    ("verb", "arguments", "expected"),
    [
        ("run", ("--port", "99999"), "99999 is not in the range 0<=x<=65535"),
        ("run", ("--port", "-1"), "-1 is not in the range 0<=x<=65535"),
        ("launch", (*KUBERNETES, "--image", "bad image", "--claim", "c"), "'bad image' is not an image ref"),
        ("launch", (*KUBERNETES, "--image", "i", "--claim", "My Claim"), "can be called 'My Claim'"),
        ("export", ("-o", "out", "--set", "exports=[]"), "exports: the spec asks for no exports"),
        ("export", ("-o", "out", "--format", "awq"), "asks for no export of the format awq"),
    ],
)
def test_impossible_options_are_refused_at_once(spec, verb, arguments, expected):
    error = run(verb, spec, *arguments).exception
    assert isinstance(error, TunebuildError | click.BadParameter), error
    assert expected in str(error)
    assert not list((spec.parent / "store").glob("records/*/*"))


def test_an_endpoint_that_runs_is_asked_without_a_build(spec):
    error = run("verify", spec, "--url", "http://127.0.0.1:9/v1/").exception
    assert str(error).startswith("cannot ask http://127.0.0.1:9: ")  # whatever names the root of its API
    assert [path.name for path in (spec.parent / "store" / "records").iterdir()] == ["data"]


def test_commands_printed_by_init_run(tmp_path):
    done = CliRunner().invoke(app, ["init", str(tmp_path / "My Bot")], standalone_mode=False)
    commands = done.stderr.rpartition("next: ")[2].split("; ")
    assert {shlex.split(command)[2] for command in commands} == {str(tmp_path / "My Bot" / "spec.yaml")}


def test_the_package_is_the_command():
    done = subprocess.run([sys.executable, "-m", "tunebuild", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("tunebuild, version "), done.stderr


def test_out_of_memory_hint_names_a_setting_that_is_not_set_yet(spec):
    small = ("--set", "tuning.nodes=1", "--set", "tuning.memory={fit: 500MB}")
    for method, hint in (("lora", ", or use tuning.method: qlora"), ("qlora", "")):
        error = run("plan", spec, *small, "--set", f"tuning.method={method}").exception
        assert str(error).endswith(f"allow more, lower tuning.max_length{hint}")


def test_a_check_of_several_locks_tells_of_each(spec):
    other = spec.with_name("other.yaml")
    other.write_text(SPEC)
    error = run("lock", spec, other, "--check").exception
    assert isinstance(error, TunebuildError)
    assert [d.code for d in error.diagnostics] == ["no-lock", "no-lock"]
    assert {d.message for d in error.diagnostics} == {
        f"there is no {file.with_suffix('.lock')}" for file in (spec, other)
    }
