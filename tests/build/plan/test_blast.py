"""Every field of a spec matters to a stage that reads it, or is declared to matter to none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from support import templates
from support.models import save_base
from tunebuild import resources
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.plan.blast import PRESENTATION_ONLY, blast
from tunebuild.errors import TunebuildError
from tunebuild.lock.record import field_changes, record_of
from tunebuild.spec import load_spec
from tunebuild.spec.schema import published_schema, schema_at
from tunebuild.spec.yaml_loader import parse_dotted
from tunebuild.store import Store

SPEC = """\
apiVersion: tunebuild/v1
name: support-bot
description: Answers questions.
data:
  train: [{path: faq.jsonl, format: qa, columns: {answer: reply}}]
  eval: {fraction: 0.1, files: [{path: held_out.jsonl, format: qa, columns: {answer: reply}}]}
model: {base: ./base}
prompt: {template: chatml}
merge: {strategy: original}
"""

# Other values for fields that have no list of them.
OTHERS = {
    "name": ["other"],
    "description": ["Other."],
    "data.train[].path": ["copy.jsonl"],
    "data.eval.files[].path": ["held_copy.jsonl"],
    "data.train[].columns": ["{}"],
    "data.eval.files[].columns": ["{}"],
    "data.train[].where": ["{reply: R.}"],
    "data.eval.files[].where": ["{reply: R.}"],
    **{
        f"data.{where}[].where.{name}": [value]
        for where in ("train", "eval.files")
        for name, value in {
            "in": "[R.]",
            "not": "R.",
            "min": "1",
            "max": "1",
            "matches": "R",
        }.items()
    },
    "model.base": ["./other"],
    "prompt.template": ["alpaca"],
    "prompt.template.file": ["two.jinja"],
    "prompt.system": ["Be brief."],
    "prompt.new_tokens": ["[<|new|>]"],
    "prompt.date": ["2026-01-31"],
    "prompt.variables": ["{tone: dry}"],
    "serving.request_variables": ["[tone]"],
    "serving.cors": ["[https://app.example.com]"],
    "tuning.lora.targets": ["[q_proj]"],
    "outputs": ["[image, adapter]"],
    "image.repository": ["example.com/other"],
    "image.tag": ["other"],
    "image.source": ["https://git.example.com/x"],
    "image.revision": ["4f2c1d9"],
    "image.license": ["Apache-2.0"],
    "tuning.memory": ["{fit: 20GB}"],
    "tuning.memory.fit": ["20GB"],
    "tuning.peft": ["{type: prompt_tuning}"],
    "tuning.early_stopping": ["{patience: 2}"],
    "tuning.report_to": ["[tensorboard]"],
    "gates.merge_kl": ["{max: 0.3}"],
    "gates.merge_lost": ["{max: 0.3}"],
    "gates.merge_top1": ["{min: 0.5}"],
    "gates.eval_loss": ["{max: 5}"],
    "gates.eval_accuracy": ["{min: 0.5}"],
    "gates.eval_perplexity": ["{max: 5}"],
    "gates.exact_match": ["{min: 0.5}"],
    "gates.token_f1": ["{min: 0.5}"],
    "gates.rouge_l": ["{min: 0.5}"],
    "gates.regression_kl": ["{max: 5}"],
    "gates.regression_top1": ["{min: 0.5}"],
    "evaluation.regression": ["[Who wrote Hamlet?]"],
    "evaluation.tasks": ["[arc_easy]"],
    "exports[].gates.kl": ["{max: 0.3}"],
    "exports[].gates.lost": ["{max: 0.3}"],
    "exports[].gates.top1": ["{min: 0.5}"],
    "exports[].gates.eval_loss": ["{max: 5}"],
    "exports[].gates.eval_accuracy": ["{min: 0.5}"],
    "exports[].gates.eval_perplexity": ["{max: 5}"],
    "gates.tasks.min": ["{acc: {min: 0.5}}"],
    "gates.tasks.max": ["{acc: {max: 0.5}}"],
}

PEFT = ("merge.strategy=auto", "tuning.method=peft", "tuning.peft={type: prefix_tuning}")
EXPORTS = ("exports=[{format: gptq}]",)
# What has to stand in the spec for a field to be there.
BEFORE = {
    "tuning.peft": PEFT,
    "tuning.peft.type": PEFT,
    "tuning.peft.virtual_tokens": PEFT,
    "prompt.template.file": ("prompt.template={file: one.jinja}",),
    "prompt.plain_answers": ("prompt.template={file: opened.jinja}",),
    "prompt.new_tokens": ("prompt.template={file: new.jinja}",),
    "prompt.variables": ("prompt.template={file: tone.jinja}",),
    "serving.request_variables": ("prompt.template={file: tone.jinja}",),
    "tuning.memory.fit": ("tuning.memory={fit: 10GB}",),
    "tuning.shard": ("merge.strategy=auto", "tuning.method=lora", "tuning.processes=2"),
    "gates.tasks.min": ("evaluation.tasks=[min]",),
    "gates.tasks.max": ("evaluation.tasks=[max]",),
    "tuning.early_stopping.patience": ("tuning.early_stopping={}",),
    "tuning.early_stopping.min_delta": ("tuning.early_stopping={}",),
}


def fields(section: dict[str, Any], path: str = "") -> Iterator[str]:
    """Dotted paths of all fields that hold no section, lists as ``[]``."""
    for name, field in section["properties"].items():
        inner = f"{path}{name}"
        references = re.findall(r"#/\$defs/(\w+)", json.dumps(field))
        if "items" in field and references:
            inner += "[]"
        for reference in references:
            yield from fields(published_schema()["$defs"][reference], f"{inner}.")
        if not references or "anyOf" in field:
            yield inner


def other_values(field: str) -> Iterator[Any]:
    """Values to try instead of the present one."""
    yield from OTHERS.get(field, [])
    for schema in schema_at(parse_dotted(field.replace("[]", "[0]"))):
        yield from schema.get("enum", [])
        if schema.get("type") == "boolean":
            yield from ("true", "false")
        if schema.get("type") in ("integer", "number"):
            yield from (1, 2, 4, 16, 100, 20_000, 0.5, 0.25)


FIELDS = sorted(set(fields(published_schema())))
# One value, so far; and what is measured has no weight.
UNCHANGING = {
    "data.eval.files[].weight",
    "apiVersion",
    "extends",
    "image.base",
    "image.platform",
    "serving.engine",
}
# A directory or a file has none of these; what comes from a hub counts by its content.
HUB_ONLY = {"model.revision", "model.token"} | {
    f"data.{where}[].{name}"
    for where in ("train", "eval.files")
    for name in ("hub", "revision", "token", "split", "config")
}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fields")
    save_base("llama", directory / "base")
    save_base("llama", directory / "other", initializer_range=0.02)
    row = '{"question": "Q?", "answer": "A.", "reply": "R."}\n'
    for name in ("faq", "copy", "held_out", "held_copy"):
        (directory / f"{name}.jsonl").write_text(row * 4)
    template = (resources.path("templates", "prompts") / "chatml.jinja").read_text()
    for name in ("one", "two"):
        (directory / f"{name}.jinja").write_text(template)
    (directory / "opened.jinja").write_text(templates.OPENED)
    (directory / "new.jinja").write_text("<|new|>" + template)
    (directory / "tone.jinja").write_text(template + "{{ tone }}")
    (directory / "spec.yaml").write_text(SPEC)
    store = Store(directory / "store")

    def inputs(*overrides: str) -> tuple[Any, dict[str, Any]]:
        loaded = load_spec(directory / "spec.yaml", overrides)
        return loaded.spec, Pipeline(loaded, store).own_inputs

    return inputs


@pytest.mark.parametrize("field", [f for f in FIELDS if f not in UNCHANGING | HUB_ONLY])
def test_a_field_changes_a_stage_or_is_declared_presentation(build, field):
    before = BEFORE.get(field, EXPORTS if field.startswith("exports[]") else ())
    spec, old = build(*before)
    tried = 0
    for value in other_values(field):
        try:
            changed, new = build(*before, f"{field.replace('[]', '[0]')}={value}")
        except TunebuildError:
            continue  # breaks another rule
        if changed == spec:
            continue
        tried += 1
        # A locked build refuses it, whether it changes anything or only the image's record of the spec.
        assert list(field_changes(record_of(spec), record_of(changed))), (
            f"a lock does not tell {field}={value}"
        )
        found = blast("x", old, new)
        named = [c.field for changes in found.changes.values() for c in changes]
        meant = [name for name in named if not name.endswith(("spec_digest", "tunebuild.spec"))]
        if field in PRESENTATION_ONLY:
            assert not meant
            assert found.level == "metadata"
        else:
            assert meant, f"{field}={value} changes nothing"
    assert tried, f"no other value for {field}"


@pytest.mark.quick
def test_what_is_declared_exists():
    assert set(PRESENTATION_ONLY) | UNCHANGING | HUB_ONLY <= set(FIELDS)
    assert set(PRESENTATION_ONLY) >= HUB_ONLY


@pytest.mark.parametrize(
    ("override", "level", "stages"),
    [
        ("description=Other.", "metadata", ("image",)),
        ("image.tag=other", "metadata", ("image",)),
        ("serving.defaults.max_tokens=3", "serve only", ("image",)),
        ("gates.merge_kl={max: 0.3}", "other gates", ("evaluate", "image")),
        ("exports=[{format: awq}]", "other exports", ("export", "image")),
        ("merge.strategy=auto", "merge again", ("merge", "evaluate", "weights", "image")),
        ("merge.strategy=none", "merge again", ("merge", "evaluate", "weights", "runtime", "image")),
        ("tuning.seed=3", "retrain", ("data", "train", "merge", "evaluate", "weights", "image")),
        ("tuning.epochs=9", "retrain", ("train", "merge", "evaluate", "weights", "image")),
        ("prompt.system=Hello", "retrain", ("data", "train", "merge", "evaluate", "weights", "image")),
    ],
)
def test_how_far_a_change_reaches(build, override, level, stages):
    found = blast("x", build()[1], build(override)[1])
    assert (found.level, found.stages) == (level, stages)


def test_an_export_is_made_again_after_what_comes_before(build):
    found = blast("x", build(*EXPORTS)[1], build(*EXPORTS, "tuning.epochs=9")[1])
    assert found.stages == ("train", "merge", "evaluate", "export", "weights", "image")
    gone = blast("x", build(*EXPORTS)[1], build()[1])
    assert (gone.level, gone.stages) == ("other exports", ("image",))


def test_a_strategy_that_is_not_settled_is_not_named(build):
    settled, measured = build()[1], build("merge.strategy=auto")[1]
    assert settled["merge"]["strategy"] == "original"
    assert "strategy" not in measured["merge"]
    assert measured["evaluate"]["strategies"] == ["dequantized", "original"]


@pytest.mark.parametrize(
    ("stage", "name", "level"),
    [
        ("evaluate", "general", "other gates"),
        ("evaluate", "libraries", "other gates"),
        ("image", "templates", "metadata"),
        ("image", "server", "serve only"),
    ],
)
def test_what_a_release_brings_counts_as_much_as_a_field(build, stage, name, level):
    new = build()[1]
    assert new[stage][name]
    old = {**new, stage: {**new[stage], name: []}}
    found = blast("x", old, new)
    assert (found.level, list(found.changes)) == (level, [stage])


def test_specs_with_tasks_are_compared_where_nothing_can_do_them(build, monkeypatch):
    tasks = "evaluation.tasks=[arc_easy]"
    with monkeypatch.context() as without:
        without.setattr("tunebuild.evaluate.stage._TASKS_LIBRARY", "no_such_library")
        old, new = build()[1], build(tasks)[1]
    assert blast("x", old, new).level == "other gates"


def test_no_change_reruns_nothing(build):
    found = blast("x", build()[1], build()[1])
    assert (found.level, found.stages, found.changes) == ("nothing", (), {})
