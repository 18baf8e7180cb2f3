"""Every mistake in a spec is found at once, with its place and a way out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tunebuild import resources
from tunebuild.build.plan.report import SCHEMA_FILE as PLAN_SCHEMA
from tunebuild.build.plan.report import plan_schema
from tunebuild.errors import TunebuildError
from tunebuild.spec import load_spec
from tunebuild.spec.publish import schema_text
from tunebuild.spec.reference import reference_page
from tunebuild.spec.schema import SCHEMA_FILE
from tunebuild.spec.yaml_loader import parse_yaml

VALID = """\
apiVersion: tunebuild/v1
name: support-bot
data:
  train:
    - {path: faq.jsonl, format: qa}
model:
  base: ./base
tuning:
  lora: {r: 8, alpha: 16}
  learning_rate: 2e-4
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "x.xlsx").touch()
    (tmp_path / "faq.jsonl").write_text("")
    return tmp_path


def problems(directory: Path, text: str) -> list[str]:
    spec = directory / "spec.yaml"
    spec.write_text(text)
    with pytest.raises(TunebuildError) as caught:
        load_spec(spec)
    return [str(d).removeprefix(str(directory) + "/") for d in caught.value.diagnostics]


def test_a_variable_whose_name_is_wrong_is_named_with_what_names_are(directory):
    (said,) = problems(directory, VALID + "prompt: {variables: {enable-thinking: true}}\n")
    assert "the name 'enable-thinking' is wrong" in said
    assert "[A-Za-z_][A-Za-z0-9_]" in said


@pytest.mark.parametrize(
    "gate",
    [
        "exact_match: {min: 50}",
        "merge_lost: {max: 2}",
        "rouge_l: {min: -1}",
        "eval_perplexity: {max: 0.05}",
        "eval_loss: {max: -1}",
        "merge_kl: {max: -0.1}",
    ],
)
def test_a_gate_that_no_figure_could_pass_is_refused(directory, gate):
    held_out = VALID.replace("model:", "  eval: {fraction: 0.1}\nmodel:")
    (found,) = problems(directory, held_out + f"gates: {{{gate}}}\n")
    assert f"gates.{gate.partition(':')[0]}.m" in found


def test_a_valid_spec_loads(directory):
    (directory / "spec.yaml").write_text(VALID)
    spec = load_spec(directory / "spec.yaml").spec
    assert spec.tuning.learning_rate == 2e-4
    assert spec.tuning.lora.r == 8
    assert spec.reference == "support-bot:latest"


def test_all_problems_come_at_once_and_in_order(directory):
    text = VALID.replace("{r: 8", "{rank: 8").replace("format: qa", "format: qaa").replace("2e-4", "fast")
    assert problems(directory, text) == [
        "spec.yaml:5:33 data.train[0].format: cannot be 'qaa'; did you mean 'qa'?",
        "spec.yaml:9:10 tuning.lora.rank: unknown key; did you mean 'r'?",
        "spec.yaml:10:18 tuning.learning_rate: must be a number, not 'fast'; for example: 0.0002",
    ]


def test_rules_across_fields_speak_beside_typos(directory):
    text = VALID.replace("name: support-bot", "name: a\nname: b\nextra: 1")
    text = text.replace("{path: faq.jsonl", "{path: faq.jsonl, formt: qa}\n    - {path: no.jsonl")
    text += "  batch_size: 8\n  micro_batch_size: 3\n  epochs: many\n  keep: best\n"
    places = [line.split(": ")[0] for line in problems(directory, text)]
    assert places == [
        "spec.yaml:3:1",
        "spec.yaml:4:1 extra",
        "spec.yaml:7:25 data.train[0].formt",
        "spec.yaml:8:14 data.train[1].path",
        "spec.yaml:15:21 tuning.micro_batch_size",
        "spec.yaml:16:11 tuning.epochs",
        "spec.yaml:17:9 tuning.keep",
    ]


@pytest.mark.parametrize(
    "text",
    [
        VALID.replace("model:", "  eval: {fracton: 0.1}\nmodel:") + "  keep: best\n",  # may be meant
        VALID.replace("model:", "  eval: {fraction: some}\nmodel:") + "  keep: best\n",
        VALID + "  micro_batch_size: 3\n  batch_sise: 9\n",
        VALID.replace("  base: ./base", "  bse: ./none"),
    ],
)
def test_a_rule_says_nothing_where_a_field_it_concerns_cannot_be_read(directory, text):
    (found, *more) = problems(directory, text)
    assert "unknown key" in found or "must be a number" in found
    assert all("is required" in line for line in more)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: support-bot\n", "", "1:1 name: is required; for example: 'support-bot'"),
        ("name: support-bot", "nmae: x\nname: a", "2:1 nmae: unknown key; did you mean 'name'?"),
        ("name: support-bot", "name: a\nname: b", "3:1: key 'name' is here twice; first in line 2"),
        ("  base: ./base", "  base: model", "7:9 model.base: 'model' is not a hub id such as org/name"),
        ("  base: ./base", "  base: ../x", "7:9 model.base: '../x' is outside"),
        ("  base: ./base", "  base: ./none", "7:9 model.base: './none' holds no config.json"),
        ("path: faq.jsonl", "path: ../faq.jsonl", "5:14 data.train[0].path: '../faq.jsonl' is outside"),
        ("path: faq.jsonl", "path: no.jsonl", "5:14 data.train[0].path: there is no file 'no.jsonl'"),
        (
            "tuning:",
            "merge: {strategy: dequantized}\ntuning:\n  method: lora",
            "merge.strategy: 'dequantized' needs",
        ),
        ("tuning:", "tuning:\n  micro_batch_size: 3", "batch_size 8 is not a multiple"),
        ("tuning:", "tuning:\n  method: full", "tuning.lora: method full trains no adapter"),
        (
            "tuning:",
            "merge: {strategy: original}\ntuning:\n  method: full",
            "merge.strategy: method full has no adapter to merge",
        ),
        (
            "tuning:",
            "merge: {strategy: none}\ntuning:\n  method: full",
            "method full has no adapter to merge",
        ),
        ("tuning:", "tuning:\n  method: peft", "tuning.method: method peft needs a type"),
        ("tuning:", "tuning:\n  peft: {type: ia3}", "tuning.peft: method qlora trains none"),
        (
            "tuning:",
            "merge: {strategy: original}\ntuning:\n  method: peft\n  peft: {type: ia3}",
            "merge.strategy: what method peft trains is served beside the base",
        ),
        ("{r: 8", "{init: pissa, r: 8", "tuning.lora.init: 'pissa' needs tuning.method lora, not qlora"),
        ("{r: 8", "{init: loftq, dora: true, r: 8", "tuning.lora.init: 'loftq' does not go with dora"),
        (
            "tuning:\n  lora: {r: 8",
            "merge: {strategy: original}\ntuning:\n  lora: {init: loftq, r: 8",
            "merge.strategy: 'original' is wrong for loftq",
        ),
        ("tuning:", "prompt: {template: chatmll}\ntuning:", "8:20 prompt.template: there is no template"),
        (
            "tuning:",
            "prompt: {date: x}\ntuning:",
            "'x' does not have the right form; for example: '2026-",
        ),
        (
            "tuning:",
            "image: {repository: Foo/Bar}\ntuning:",
            "image.repository: 'Foo/Bar' does not have the right form; did you mean foo/bar?",
        ),
        ("tuning:", "gates: {tasks: {a: {acc: {min: 1}}}}\ntuning:", "gates.tasks.a: no task 'a' is in eval"),
        (
            "tuning:",
            "evaluation: {tasks: [a]}\ngates: {tasks: {a: {acc: {min: 1, max: 0}}}}\ntuning:",
            "gates.tasks.a.acc.min: nothing is at least 1 and at most 0",
        ),
        (
            "tuning:",
            "gates: {eval_perplexity: {}}\ntuning:",
            "perplexity.max: is required; for example: 5",
        ),
        (
            "path: faq.jsonl",
            "path: base/x.xlsx",
            "data.train[0].path: cannot read 'base/x.xlsx'; use",
        ),
        ("tuning:", "description: ${env:X}\ntuning:", "8:14 description: takes no ${env:...}"),
        (
            "tuning:",
            "description: hf_" + "a" * 34 + "\ntuning:",
            "8:14 description: looks like an access token",
        ),
        ("2e-4", "-1", "10:18 tuning.learning_rate: -1 must be greater than 0"),
        ("tuning:", "tuning:\n  max_length: 9.3e18", "9:15 tuning.max_length: unable to parse"),
        ("2e-4", "no", "must be a number, not 'no'"),
        ("2e-4", ".nan", ".nan is not a number that a spec can use"),
        ("2e-4", "!!python/object:os.system x", "tags such as"),
        ("  base: ./base", "  <<: {base: ./base}", "merge keys (<<)"),
        (
            "tunebuild/v1",
            "tunebuild/v2",
            "1:13 apiVersion: cannot be 'tunebuild/v2'; did you mean 'tunebuild/v1'?",
        ),
    ],
)
def test_each_mistake_is_named(directory, old, new, expected):
    assert old in VALID
    found = problems(directory, VALID.replace(old, new))
    assert any(expected in line for line in found), found


def test_a_link_out_of_the_directory_is_outside(directory, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "faq.jsonl"
    elsewhere.write_text("")
    (directory / "faq.jsonl").unlink()
    (directory / "faq.jsonl").symlink_to(elsewhere)
    assert any("outside the spec's directory" in line for line in problems(directory, VALID))


def test_missing_and_broken_files(directory):
    with pytest.raises(TunebuildError, match="there is no file"):
        load_spec(directory / "none.yaml")
    assert "spec.yaml:3:" in problems(directory, "a: [1,\nb: 2")[0]
    (directory / "spec.yaml").write_bytes(b"name: ok\nother: \xff\n")
    with pytest.raises(TunebuildError, match=r"spec.yaml:2:1: the file is not UTF-8"):
        load_spec(directory / "spec.yaml")


def test_alias_bombs_are_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(TunebuildError, match="expand to too much"):
        parse_yaml("\n".join(lines).encode(), "bomb.yaml")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_no_bytes_bring_a_traceback(data):
    try:
        parse_yaml(data, "fuzz.yaml")
    except TunebuildError as error:
        assert error.diagnostics


def test_what_is_generated_is_up_to_date():
    made = {
        resources.path("schema", SCHEMA_FILE): schema_text(),
        resources.path("schema", PLAN_SCHEMA): json.dumps(plan_schema(), indent=2) + "\n",
        resources.root() / "docs" / "spec.md": reference_page(),
    }
    for file, text in made.items():
        assert file.read_text() == text, f"{file.name}: run 'make schema'"


def test_every_object_of_the_schema_is_closed_and_described():
    schema = json.loads(schema_text())
    objects = [schema, *schema["$defs"].values()]
    for definition in objects:
        assert definition["additionalProperties"] is False
        for name, field in definition["properties"].items():
            section = schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
            assert field.get("description") or section.get("description"), name
            assert field.get("examples"), name
            required = definition.get("required", definition.get("else", {}).get("required", ()))
            assert name in required or "default" in field, name


@pytest.mark.parametrize("spec", sorted((resources.root() / "examples").glob("*/spec.yaml")), ids=str)
def test_editors_find_the_schema_of_an_example_and_agree_with_it(spec):
    """As a YAML language server does: the first line names the schema, relative to the file."""
    name = re.match(r"# yaml-language-server: \$schema=(\S+)\n", spec.read_text())[1]
    schema = json.loads((spec.parent / name).read_text())
    Draft202012Validator.check_schema(schema)
    assert not list(Draft202012Validator(schema).iter_errors(parse_yaml(spec.read_bytes(), "x").value))


def test_an_overlay_may_leave_out_what_its_base_has():
    validator = Draft202012Validator(json.loads(schema_text()))
    assert validator.is_valid({"extends": "base.yaml", "name": "x"})
    assert not validator.is_valid({"name": "x"})


def test_validation_imports_no_heavy_library():
    script = (
        "import sys; import tunebuild.cli, tunebuild.cli.validate;"
        "bad = {'torch', 'transformers', 'datasets', 'docker', 'fastapi', 'pyarrow', 'tokenizers'};"
        "print(sorted(bad & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_warmup_is_said_once(directory):
    text = VALID + "  warmup_ratio: 0.1\n"
    (directory / "spec.yaml").write_text(text)
    assert load_spec(directory / "spec.yaml").spec.tuning.warmup_ratio == 0.1
    (line,) = problems(directory, text + "  warmup_steps: 5\n")
    assert "tuning.warmup_ratio: is set together with warmup_steps" in line
