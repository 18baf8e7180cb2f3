"""Each verb works with what it promises to work with, and says what it lacks before anything else."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.installed import ROOT, install_core, run_installed, run_with
from support.models import save_base
from tunebuild import extras
from tunebuild.cli import app

SPEC = """\
apiVersion: tunebuild/v1
name: tiny
data: {train: [{path: rows.jsonl, format: qa}]}
model: {base: ./base}
tuning: {max_length: 64}
"""
THEIRS = """\
base_model: ./base
datasets: [{path: rows.jsonl, type: chat_template}]
adapter: lora
lora_r: 8
lora_target_linear: true
num_epochs: 1
warmup_steps: 2
"""
# What the core alone does, and with which arguments.
CORE = {
    "validate": ("{spec}",),
    "schema": (),
    "schema plan": (),
    "render-spec": ("{spec}",),
    "launch": ("{spec}", "--store", "{store}"),
    "cache ls": ("--store", "{store}"),
    "doctor": ("--store", "{store}"),
    "init": ("{new}",),
    "import": ("{theirs}",),
}
# By verb: the arguments, what it lacks with the core alone.
MORE = {
    "data": (("{spec}",), "plan"),
    "plan": (("{spec}",), "plan"),
    "lock": (("{spec}", "--check"), "plan"),
    "build": (("{spec}",), "train"),
    "train": (("{spec}",), "train"),
    "render": (("{spec}", "-o", "{new}"), "train"),
    "export": (("{spec}", "-o", "{new}"), "train"),
    "run": (("{spec}",), "train"),
    "chat": (("{spec}",), "train"),
    "verify": (("{spec}",), "train"),
    "bundle": (("{spec}", "-o", "{new}.tar"), "train"),
    "push": (("{spec}", "localhost:1/x:1"), "train"),
    "load": (("{spec}",), "train"),
    "deploy": (("{spec}", "--to", "compose"), "image"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    directory = tmp_path_factory.mktemp("installed")
    save_base("llama", directory / "base")
    rows = "".join(json.dumps({"question": f"Why {n}?", "answer": "So."}) + "\n" for n in range(4))
    (directory / "rows.jsonl").write_text(rows)
    (directory / "spec.yaml").write_text(SPEC)
    (directory / "cut.tar").write_bytes(b"no archive")
    (directory / "theirs.yml").write_text(THEIRS)
    names = {"theirs": "theirs.yml", "spec": "spec.yaml", "store": "store", "new": "new", "cut": "cut.tar"}
    return {name: directory / file for name, file in names.items()}


def filled(verb: str, arguments: tuple[str, ...], places: dict[str, Path], number: int) -> list[str]:
    values = {**places, "new": places["new"].with_name(f"new{number}")}
    return [*verb.split(), *(word.format(**values) for word in arguments)]


def _lasting(plan: str) -> dict:
    found = json.loads(plan)
    del found["disk"]["free"]
    return found


def test_every_verb_is_tried():
    tried = {name.split()[0] for name in (*CORE, *MORE)}
    assert tried | {"explain"} == set(app.verbs)


def test_a_wheel_without_extras_does_what_the_core_promises(places, tmp_path):
    command = install_core(tmp_path)
    for number, (verb, arguments) in enumerate(CORE.items()):
        done = run_installed(command, *filled(verb, arguments, places, number))
        assert done.code == 0, (verb, done.err)
    for number, (verb, (arguments, extra)) in enumerate(MORE.items()):
        done = run_installed(command, *filled(verb, arguments, places, 50 + number))
        lines = done.err.splitlines()
        assert (done.code, done.out, len(lines)) == (1, "", 1), (verb, done)
        assert re.search("not installed; the extra .* brings", lines[0]), (verb, lines)
        assert f"tunebuild[{extra}" in lines[0] or f",{extra}]" in lines[0], (verb, lines)
    assert "Examples:" in run_installed(command, "build", "--help").out
    for verb in ("explain", "verify"):  # these read an archive with the core alone, if it is one
        done = run_installed(command, verb, places["cut"])
        assert done.code == 1
        assert "not installed" not in done.err
        assert "Traceback" not in done.err
    assert "tunebuild[docker]" in run_installed(command, "load", places["cut"]).err
    assert "tunebuild[image]" in run_installed(command, "push", places["cut"], "localhost:1/x:1").err


def test_plan_data_and_lock_need_no_torch(places):
    store = ("--store", places["store"])
    shown = run_with({"plan"}, "data", places["spec"], *store)
    assert shown.code == 0, shown.err
    assert "4 rows to train on" in shown.out
    plan = ("plan", places["spec"], "--json", "--device", "cpu", *store)
    without, with_ = run_with({"plan"}, *plan), run_with(set(extras.MODULES), *plan)
    assert without.code == with_.code == 2, without.err
    # What a build would compute with is what tunebuild ships with, and that is installed here.
    assert _lasting(without.out) == _lasting(with_.out)
    checked = run_with({"plan"}, "lock", places["spec"], "--check", *store)
    assert checked.code == 1
    assert "there is no" in checked.err
    built = run_with({"plan"}, "build", places["spec"], *store)
    assert re.search(r"'build' needs accelerate.* and \d more, .*\[train\]", built.err), built.err


def test_what_is_listed_is_what_the_extras_bring():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def names(extra: str) -> set[str]:
        found = set()
        for text in declared[extra]:
            wanted = Requirement(text)
            found |= set().union(*map(names, wanted.extras)) if wanted.name == "tunebuild" else {wanted.name}
        return found

    core = {"jinja2", "pydantic", "tokenizers"}  # the image's list names them, too
    for extra, modules in extras.MODULES.items():
        listed = {extras.DISTRIBUTIONS.get(module, module).replace("_", "-") for module in modules}
        assert listed == names(extra) - core, extra


def test_what_is_broken_is_not_called_absent(monkeypatch):
    assert extras.explained(ModuleNotFoundError("No module named 'nowhere'", name="nowhere")) is None
    assert extras.explained(ModuleNotFoundError("No module named 'numpy.x'", name="numpy.x")) is None
    monkeypatch.setattr(extras, "is_there", lambda module: module != "numpy")
    found = extras.explained(ModuleNotFoundError("No module named 'numpy'", name="numpy"))
    assert "needs numpy, which is not installed" in str(found)


@pytest.mark.parametrize(
    ("recorded", "command", "address"),
    [
        (None, "pip install 'tunebuild[plan]'", ""),
        ({"url": "file:///w/x.whl"}, "pip install 'tunebuild[plan] @ file:///w/x.whl'", ""),
        (
            {"url": "https://x.example/tunebuild-1-py3-none-any.whl"},
            "pip install 'tunebuild[plan] @ https://x.example/tunebuild-1-py3-none-any.whl'",
            "https://x.example/tunebuild-1-py3-none-any.whl",
        ),
        (
            {"url": "https://x.example/t", "vcs_info": {"vcs": "git", "commit_id": "4f2c"}},
            "pip install 'tunebuild[plan] @ git+https://x.example/t@4f2c'",
            "git+https://x.example/t@4f2c",
        ),
        ({"url": "file:///src/t", "dir_info": {"editable": True}}, "pip install -e '/src/t[plan]'", ""),
    ],
)
def test_an_extra_is_added_from_where_the_rest_came_from(monkeypatch, recorded, command, address):
    class Installed:
        def read_text(self, name: str) -> str | None:
            return json.dumps(recorded) if recorded else None

    monkeypatch.setattr(extras, "distribution", lambda name: Installed())
    assert (extras.install_command(["plan"]), extras.address()) == (command, address)
