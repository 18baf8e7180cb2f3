"""``tunebuild import``: what it prints and writes, how it ends, and what its errors teach."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunebuild.cli import app
from tunebuild.errors import TunebuildError
from tunebuild.importers import IMPORTERS
from tunebuild.spec import load_spec

CLEAN = """\
base_model: example-org/tiny
datasets: [{path: example-org/talks, type: chat_template}]
adapter: lora
lora_target_linear: true
num_epochs: 1
warmup_steps: 1
"""


def run(*arguments):
    return CliRunner().invoke(app, ["import", *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def theirs(tmp_path):
    file = tmp_path / "theirs.yml"
    file.write_text(CLEAN)
    return file


def test_a_spec_is_written_and_the_lists_are_shown(theirs, tmp_path):
    done = run(theirs, "-o", tmp_path / "spec.yaml")
    assert done.exception is None
    assert load_spec(tmp_path / "spec.yaml").spec.tuning.method == "lora"
    assert "base_model -> model.base" in done.stderr
    assert done.stdout == ""


def test_without_a_file_the_spec_is_on_stdout_alone(theirs, tmp_path):
    done = run(theirs)
    (tmp_path / "spec.yaml").write_text(done.stdout)
    assert load_spec(tmp_path / "spec.yaml").spec.model.base == "example-org/tiny"
    assert "carried" in done.stderr


def test_what_needs_attention_is_status_2(theirs, tmp_path):
    theirs.write_text(CLEAN + "neftune_noise_alpha: 5\n")
    done = run(theirs, "-o", tmp_path / "spec.yaml")
    assert done.exception.exit_code == 2
    assert (tmp_path / "spec.yaml").is_file()
    assert "not carried (1):\n  neftune_noise_alpha: " in done.stderr


def test_json_has_everything(theirs):
    theirs.write_text(CLEAN + "neftune_noise_alpha: 5\nbf16: true\n")
    found = json.loads(run(theirs, "--json").stdout)
    assert found["tool"] == "axolotl"
    keys = [one["key"] for name in ("carried", "same", "not_carried") for one in found[name]]
    assert len(keys) == len(set(keys)) == 9
    assert found["not_carried"][0]["todo"]


def test_a_file_that_is_there_is_not_replaced(theirs, tmp_path):
    (tmp_path / "spec.yaml").write_text("mine")
    done = run(theirs, "-o", tmp_path / "spec.yaml")
    assert "is there already" in str(done.exception)
    assert (tmp_path / "spec.yaml").read_text() == "mine"


def test_a_spec_that_cannot_be_written_is_an_error(theirs, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    error = run(theirs, "-o", tmp_path / "spec.yaml").exception
    assert isinstance(error, TunebuildError)
    assert "Permission denied" in str(error)


def test_a_named_tool_wins_over_the_keys(theirs):
    theirs.write_text("model_name_or_path: example-org/tiny\ndataset: faq\n")
    assert json.loads(run(theirs, "--json").stdout)["tool"] == "LLaMA-Factory"
    assert json.loads(run(theirs, "--json", "--from", "trl").stdout)["tool"] == "TRL"


NOTEBOOK = json.dumps({"cells": [{"cell_type": "code", "source": "print(1)"}]})


@pytest.mark.parametrize(
    ("name", "text", "said", "hint"),
    [
        ("a.yaml", "a: [1", "is not YAML", "the other tool is started with"),
        ("a.yaml", "just text", "holds text, not a configuration", "the other tool"),
        ("a.yaml", "", "holds nothing", "the other tool"),
        ("a.yaml", "colour: red\n", "its keys are colour", "--from"),
        ("a.yaml", "apiVersion: v1\nkind: Pod\n", "its keys are apiVersion, kind", "--from"),
        ("a.yaml", CLEAN + "adapter: qlora\n", "is here twice", "remove"),
        ("a.yaml", "apiVersion: tunebuild/v1\nname: a\n", "is a tunebuild spec already", "validate"),
        ("a.ipynb", NOTEBOOK, "does not call FastLanguageModel.from_pretrained", "get_peft_model"),
        ("a.ipynb", "{}", "has no cells", "export it as a script"),
        ("a.ipynb", "no json", "is not a notebook", "export it as a script"),
        ("a.py", "def (", "is not Python", "a script that Python runs"),
        ("a.py", "SFTTrainer(args=SFTConfig())\n", "does not call FastLanguageModel", "trl sft --config"),
        (
            "a.py",
            "FastLanguageModel.from_pretrained('example-org/tiny')\n",
            "does not call get_peft_model",
            "get_peft_model",
        ),
    ],
)
def test_errors_teach(tmp_path, name, text, said, hint):
    (tmp_path / name).write_text(text)
    error = run(tmp_path / name).exception
    assert isinstance(error, TunebuildError)
    assert error.exit_code == 1
    (diagnostic,) = error.diagnostics
    assert said in diagnostic.message
    assert hint in diagnostic.hint


def test_what_is_no_text_or_not_there_is_said(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in str(run(tmp_path / "a.yaml").exception)
    assert "there is no file" in str(run(tmp_path / "b.yaml").exception)
    assert "is a directory" in str(run(tmp_path).exception)


def test_aliases_that_expand_to_everything_are_refused(tmp_path):
    lines = ["base_model: x/y", "a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{{', '.join(f'k{m}: *a{n - 1}' for m in range(9))}}}" for n in range(1, 9)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    assert "has more than" in str(run(tmp_path / "a.yaml").exception)


def test_every_importer_can_be_named():
    shown = CliRunner().invoke(app, ["import", "--help"]).output
    assert all(importer.name in shown for importer in IMPORTERS)
