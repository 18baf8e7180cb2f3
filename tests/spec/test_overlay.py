"""Specs laid over each other, set from the command line, and printed as one."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tunebuild.cli import app
from tunebuild.errors import TunebuildError
from tunebuild.spec import Spec, load_spec
from tunebuild.spec.canonical import canonical_yaml
from tunebuild.spec.migrations import CURRENT, MIGRATIONS
from tunebuild.spec.secret import reveal
from tunebuild.spec.yaml_loader import parse_yaml

BASE = """\
apiVersion: tunebuild/v1
name: base
data:
  train: [{path: faq.jsonl, format: qa}]
model: {base: ./base}
prompt: {system: Be brief.}
tuning:
  lora: {r: 8, alpha: 16}
  epochs: 2
"""


@pytest.fixture
def directory(tmp_path):
    here = tmp_path / "here"
    (here / "base").mkdir(parents=True)
    (here / "base" / "config.json").write_text("{}")
    (here / "faq.jsonl").write_text("")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "faq.jsonl").write_text("")
    (tmp_path / "base.yaml").write_text(BASE)
    return here


def write(directory, text, name="spec.yaml"):
    (directory / name).write_text(text)
    return directory / name


def diagnostics(file, *overrides):
    with pytest.raises(TunebuildError) as caught:
        load_spec(file, overrides)
    root = str(file.parents[1]) + "/"
    return [str(d).replace(root, "") for d in caught.value.diagnostics]


def test_mappings_merge_everything_else_replaces_and_null_takes_away(directory):
    text = "extends: ../base.yaml\nname: over\nprompt: {system: null}\ntuning: {lora: {r: 4}, epochs: null}\n"
    spec = load_spec(write(directory, text)).spec
    assert (spec.name, spec.tuning.lora.r, spec.tuning.lora.alpha) == ("over", 4, 16)
    assert spec.tuning.epochs == 3  # the default, not the base's
    assert spec.prompt.system is None
    assert [s.path for s in spec.data.train] == ["../faq.jsonl"]
    assert spec.model.base == "../base"


def test_a_list_replaces_a_list(directory):
    write(directory, "", "more.jsonl")
    text = "extends: ../base.yaml\ndata: {train: [{path: more.jsonl, format: alpaca}]}\n"
    (source,) = load_spec(write(directory, text)).spec.data.train
    assert (source.path, source.format) == ("more.jsonl", "alpaca")


def test_every_mistake_is_named_in_the_file_that_made_it(directory):
    write(directory.parent, BASE.replace("r: 8", "rang: 8").replace("epochs: 2", "epochs: two"), "base.yaml")
    found = diagnostics(write(directory, "extends: ../base.yaml\nname: over\nserving:\n  prot: 1\n"))
    assert sorted(line.partition(":")[0] for line in found) == ["base.yaml", "base.yaml", "here/spec.yaml"]
    assert any(line.startswith("base.yaml:9:11 tuning.epochs: must be a number") for line in found)
    assert any(
        line.startswith("here/spec.yaml:4:3 serving.prot: unknown key; did you mean") for line in found
    )


def test_paths_belong_to_the_file_that_names_them(tmp_path):
    base, over = tmp_path / "base", tmp_path / "overlays" / "eu" / "prod"
    over.mkdir(parents=True)
    for folder in (base / "model", base / "rows", base / "tasks", over / "rows"):
        folder.mkdir(parents=True)
    (base / "model" / "config.json").write_text("{}")
    for file in (
        base / "rows" / "a.jsonl",
        base / "rows" / "b.jsonl",
        over / "held.jsonl",
        over / "rows" / "c.jsonl",
    ):
        file.write_text("")
    (base / "chat.jinja").write_text("")
    text = BASE.replace("faq.jsonl", "rows/*.jsonl").replace("./base", "./model")
    text = (
        text.replace("system: Be brief.", "template: {file: chat.jinja}") + "evaluation: {tasks: [./tasks]}\n"
    )
    write(base, text)
    write(over.parent, "extends: ../../base/spec.yaml\ntuning: {epochs: 4}\n", "eu.yaml")
    eval_files = "data: {eval: {files: [{path: held.jsonl, format: qa}]}}\n"
    loaded = load_spec(write(over, "extends: ../eu.yaml\nname: prod\n" + eval_files))
    spec, here = loaded.spec, loaded.directory
    (source,) = spec.data.train
    assert [(here / name).resolve().name for name in source.files(here)] == ["a.jsonl", "b.jsonl"]
    assert (here / spec.model.base / "config.json").is_file()
    assert (here / spec.prompt.template.file).samefile(base / "chat.jinja")
    assert (here / spec.evaluation.tasks[0]).samefile(base / "tasks")
    assert spec.data.eval.files[0].path == "held.jsonl"
    assert (
        load_spec(over / "spec.yaml", ("data.train[0].path=rows/c.jsonl",)).spec.data.train[0].path
        == "rows/c.jsonl"
    )


def test_a_file_that_a_base_lacks_is_missed_where_the_base_names_it(tmp_path):
    (tmp_path / "base" / "base").mkdir(parents=True)
    (tmp_path / "base" / "base" / "config.json").write_text("{}")
    over = tmp_path / "over"
    over.mkdir()
    (over / "faq.jsonl").write_text("")
    write(tmp_path / "base", BASE)
    (line,) = diagnostics(write(over, "extends: ../base/spec.yaml\nname: over\n"))
    assert line.startswith("base/spec.yaml:4:18 data.train[0].path: there is no file '../base/faq.jsonl'")
    (tmp_path / "base" / "faq.jsonl").write_text("")
    (tmp_path / "secret.jsonl").write_text("")
    (line,) = diagnostics(over / "spec.yaml", "data.train[0].path=../secret.jsonl")
    assert "'../secret.jsonl' is outside the spec's directory" in line


def test_chains_work_and_circles_are_refused(directory):
    write(directory, "extends: ../base.yaml\ntuning: {epochs: 5}\n", "middle.yaml")
    assert load_spec(write(directory, "extends: middle.yaml\nname: top\n")).spec.tuning.epochs == 5
    write(directory, "extends: spec.yaml\n", "middle.yaml")
    (line,) = diagnostics(directory / "spec.yaml")
    assert line.startswith("here/middle.yaml:1:10 extends: goes in a circle: spec.yaml -> middle.yaml")
    (line,) = diagnostics(write(directory, "extends: nowhere.yaml\n"))
    assert line.startswith("here/spec.yaml:1:10 extends: there is no file 'nowhere.yaml'")
    (line,) = diagnostics(write(directory, "extends: [a, b]\n"))
    assert "must be the path of another spec" in line


def test_set_is_typed_by_the_schema(directory):
    spec = write(directory, "extends: ../base.yaml\n")
    overrides = (
        "image.tag=1.0",
        "tuning.epochs=1",
        "tuning.lora.targets=[q_proj]",
        "name=007",
        "prompt.system=no",
    )
    loaded = load_spec(spec, overrides).spec
    assert (loaded.image.tag, loaded.tuning.epochs, loaded.tuning.lora.targets) == ("1.0", 1, ("q_proj",))
    assert (loaded.name, loaded.prompt.system) == ("007", "no")
    assert load_spec(spec, ("tuning.epochs=null",)).spec.tuning.epochs == 3
    assert load_spec(spec, ("data.train[0].columns.answer=reply",)).spec.data.train[0].columns == {
        "answer": "reply"
    }
    two = load_spec(spec, ("data.train[1]={path: faq.jsonl, format: alpaca}",)).spec
    assert [s.format for s in two.data.train] == ["qa", "alpaca"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tuning.epochs", "--set tuning.epochs: needs PATH=VALUE"),
        ("tuning.epochs=soon", "--set tuning.epochs: must be a number, not 'soon'"),
        ("tuning.epocs=1", "--set tuning.epocs: unknown key; did you mean 'epochs'?"),
        ("data.train[7].path=x", "--set data.train[7].path: the list has 1 items"),
        ("name.first=x", "what is before 'first' is not a mapping"),
        ("extends=x.yaml", "'extends' belongs in a file"),
        ("tuning.lora={r: 1, r: 2}", "key 'r' is here twice"),
        ("tuning={lora: {rr: 1}}", "--set tuning.lora.rr: unknown key"),
        ("tuning.epochs=", "--set tuning.epochs: has no value; null gives it its default"),
    ],
)
def test_what_cannot_be_set_is_named(directory, text, expected):
    found = diagnostics(write(directory, "extends: ../base.yaml\n"), text)
    assert any(expected in line for line in found), found


def test_a_secret_is_a_reference_and_is_never_shown(directory, monkeypatch):
    spec = write(directory, "extends: ../base.yaml\nmodel: {base: org/model, token: '${env:SECRET_TOKEN}'}\n")
    monkeypatch.setenv("SECRET_TOKEN", "opensesame")
    loaded = load_spec(spec).spec
    assert reveal(loaded.model.token, "model.token") == "opensesame"
    assert "opensesame" not in canonical_yaml(loaded)
    assert "${env:SECRET_TOKEN}" in canonical_yaml(loaded)
    for found in (
        diagnostics(spec, "model.token=opensesame"),
        diagnostics(
            write(directory, spec.read_text().replace("'${env:SECRET_TOKEN}'", "opensesame"), "b.yaml")
        ),
        diagnostics(
            write(directory, spec.read_text().replace("'${env:SECRET_TOKEN}'", "[opensesame]"), "c.yaml")
        ),
    ):
        assert any("model.token" in line for line in found)
        assert "opensesame" not in str(found)
    monkeypatch.delenv("SECRET_TOKEN")
    with pytest.raises(TunebuildError, match="SECRET_TOKEN is not set"):
        reveal(loaded.model.token, "model.token")


def test_an_older_version_is_read_and_can_be_brought_up_to_date(directory):
    old = BASE.replace("/v1", "/v1beta1") + "  batch_size: 12\n  gradient_accumulation: 4\n"
    loaded = load_spec(write(directory, old))
    assert loaded.spec.tuning.micro_batch_size == 3
    assert "v1beta1 is read as tunebuild/v1" in loaded.document.notes[0]
    new = write(directory, canonical_yaml(loaded.spec), "new.yaml")
    assert load_spec(new).spec == loaded.spec
    assert not load_spec(new).document.notes
    broken = old.replace("gradient_accumulation: 4", "gradient_accumulation: four")
    assert diagnostics(write(directory, broken)) == [
        "here/spec.yaml:11:26 tuning.micro_batch_size: must be a whole number or nothing, not 'four'; "
        "for example: 2"
    ]


def test_migrations_end_at_the_current_version():
    assert [m.after for m in MIGRATIONS][-1] == CURRENT
    for before, after in pairwise(MIGRATIONS):
        assert before.after == after.before


@given(
    st.text(min_size=1).filter(lambda t: t.isprintable())
    | st.sampled_from(
        ["no", "2e-4", "0x1f", "~", "1.0", "true", "a: b", "# no", "- x", "0o17", ".inf", "", " "]
    )
)
def test_printed_text_reads_back_as_itself(text):
    value = {"apiVersion": CURRENT, "name": "x", "description": text}
    value |= {"data": {"train": [{"path": "p", "format": "qa"}]}, "model": {"base": "./b"}}
    spec = Spec.model_validate(value)
    for defaults in (True, False):
        again = parse_yaml(canonical_yaml(spec, defaults=defaults).encode(), "x").value
        assert Spec.model_validate(again) == spec


def test_render_spec_is_canonical(directory):
    directory = directory.parent
    one = write(directory, "extends: base.yaml\nname: same\n", "a.yaml")
    two = write(
        directory,
        BASE.replace("name: base", "name: 'same'").replace("r: 8, alpha: 16", "alpha: 16, r: 0x8"),
        "b.yaml",
    )
    printed = [CliRunner().invoke(app, ["render-spec", str(f)]) for f in (one, two)]
    assert printed[0].exit_code == 0
    assert printed[0].output == printed[1].output
    third = write(directory, printed[0].output, "c.yaml")
    assert CliRunner().invoke(app, ["render-spec", str(third)]).output == printed[0].output
    short = CliRunner().invoke(app, ["render-spec", "--no-defaults", str(one)]).output
    assert "schedule" not in short
    assert "epochs" in short


@pytest.mark.parametrize("form", ["json", "sarif"])
def test_machines_get_the_same_problems(directory, form):
    file = write(directory, "extends: ../base.yaml\ntuning: {epocs: 1}\n")
    done = CliRunner().invoke(app, ["validate", str(file), "--format", form], standalone_mode=False)
    value = json.loads(done.stdout)
    if form == "json":
        (problem,) = value["diagnostics"]
        assert not value["valid"]
        assert (problem["line"], problem["column"], problem["path"]) == (2, 10, "tuning.epocs")
        assert problem["hint"] == "did you mean 'epochs'?"
    else:
        (result,) = value["runs"][0]["results"]
        place = result["locations"][0]["physicalLocation"]
        assert place["region"] == {"startLine": 2, "startColumn": 10}
        assert place["artifactLocation"]["uri"] == str(file)
        assert value["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert isinstance(done.exception, TunebuildError)
    assert done.exception.exit_code == 1
