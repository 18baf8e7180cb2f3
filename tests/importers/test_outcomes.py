"""Every key of a foreign configuration ends in exactly one list, and the spec says what is wrong with it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.foreign_configs import AIKIT, AXOLOTL, DATASET_INFO, LLAMA_FACTORY, TRL, UNSLOTH
from tunebuild.errors import TunebuildError
from tunebuild.importers import IMPORTERS, import_config
from tunebuild.spec.foreign import FOREIGN_KEYS
from tunebuild.spec.load import problems_of

RECREATED = {
    "axolotl": AXOLOTL,
    "llama-factory": LLAMA_FACTORY,
    "aikit": AIKIT,
    "unsloth": UNSLOTH,
    "trl": TRL,
}
CASES = [(tool, name) for tool, configs in RECREATED.items() for name in configs]


def leaves(value, path=""):
    """Paths of what is no mapping and no list of mappings, by a walk of its own."""
    if isinstance(value, Mapping) and value:
        inside = f"{path}." if path else ""
        return {leaf for key, one in value.items() for leaf in leaves(one, f"{inside}{key}")}
    if isinstance(value, list) and any(isinstance(one, Mapping | list) for one in value):
        return {leaf for place, one in enumerate(value) for leaf in leaves(one, f"{path}[{place}]")}
    return {path}


def written(directory, text):
    (directory / "dataset_info.json").write_text(json.dumps(DATASET_INFO))
    file = directory / ("theirs.py" if "unsloth import" in text else "theirs.yaml")
    file.write_text(text)
    return file


def arguments(text):
    """Names of the arguments that stand in a script, of calls that are read."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    read = "from_pretrained get_peft_model SFTTrainer SFTConfig TrainingArguments UnslothTrainingArguments"
    found = {}
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name in read.split():
            found.setdefault(name, {f"{name}.{one.arg}" for one in call.keywords if one.arg})
    return set().union(*found.values())


def each_key_has_one_outcome(imported, text):
    keys = [outcome.key for outcome in imported.outcomes]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(imported.keys)
    if imported.tool == "Unsloth":
        assert {".".join(re.split(r"[.\[]", key)[:2]) for key in keys} >= arguments(text)
    else:
        beside = {key for key in keys if key.startswith("dataset_info.")}
        assert set(keys) - beside == leaves(yaml.safe_load(text))
    for outcome in imported.outcomes:
        assert (outcome.kind == "carried") == bool(outcome.path), outcome
        assert (outcome.kind == "lost") == bool(outcome.todo), outcome
        assert outcome.kind == "carried" or outcome.text, outcome
        assert outcome.kind != "same" or not outcome.text.startswith("say "), outcome


@pytest.mark.parametrize(("tool", "name"), CASES)
def test_each_key_has_one_outcome(tmp_path, tool, name):
    text = RECREATED[tool][name]
    imported = import_config(written(tmp_path, text))
    assert imported.tool == next(one.title for one in IMPORTERS if one.name == tool)
    each_key_has_one_outcome(imported, text)


def test_the_entries_of_dataset_info_have_outcomes_as_well(tmp_path):
    imported = import_config(written(tmp_path, LLAMA_FACTORY["qlora"]))
    keys = {outcome.key for outcome in imported.outcomes if outcome.key.startswith("dataset_info.")}
    assert keys == leaves({"dataset_info": {name: DATASET_INFO[name] for name in ("faq", "talks")}})


@pytest.mark.parametrize(("tool", "name"), CASES)
def test_the_spec_is_valid_or_what_is_missing_is_said(tmp_path, tool, name):
    imported = import_config(written(tmp_path, RECREATED[tool][name]))
    said = " ".join(notice.text for notice in imported.notices if notice.attention)
    for problem in problems_of(imported.spec, tmp_path / "spec.yaml"):
        noted = [word.partition(":")[0] for word in said.split() if ":" in word]
        assert any(problem.path.startswith(path) for path in noted), problem
        assert imported.attention


@pytest.mark.parametrize(("tool", "name"), CASES)
def test_what_is_carried_stands_in_the_spec(tmp_path, tool, name):
    imported = import_config(written(tmp_path, RECREATED[tool][name]))
    spec = yaml.safe_load(imported.spec)
    for outcome in imported.of("carried"):
        here = spec
        for part in outcome.path.replace("[", ".[").split("."):
            here = here[int(part[1:-1])] if part.startswith("[") else here[part]
        assert here is not None, outcome


def test_a_key_that_nobody_knows_is_listed_as_such(tmp_path):
    imported = import_config(written(tmp_path, AXOLOTL["trackers"]))
    lost = {outcome.key: outcome.text for outcome in imported.of("lost")}
    for key in ("a_key_of_next_year.inside", "a_key_of_next_year.deeper.still"):
        assert "does not know" in lost[key]


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5000),
    st.floats(-1, 3, width=16),
    st.sampled_from(
        ["", "auto", "all", "none", "2e-4", "rows.jsonl", "example-org/x", "../up", "s3://a/b.jsonl"]
    ),
    st.text(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8) | st.just("path"), inner, max_size=3)
    ),
    max_leaves=8,
)
_OWN = sorted(FOREIGN_KEYS | {key for one in IMPORTERS for key in one.keys} | {"config", "dataset_info"})
configs = st.dictionaries(st.sampled_from(_OWN) | st.text(min_size=1, max_size=12), values, max_size=25)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs, tool=st.sampled_from([one.name for one in IMPORTERS if one.name != "unsloth"]))
def test_whatever_a_configuration_holds_each_key_has_one_outcome(tmp_path, config, tool):
    text = yaml.safe_dump(config, allow_unicode=False)
    try:
        imported = import_config(written(tmp_path, text), tool)
    except TunebuildError as refused:
        assert refused.diagnostics
        return
    keys = [outcome.key for outcome in imported.outcomes]
    assert sorted(keys) == sorted(imported.keys)
    assert not [one for one in imported.of("same") if one.text.startswith("say ")]
    assert {key for key in keys if not key.startswith("dataset_info")} >= {
        key for key in leaves(yaml.safe_load(text)) if not key.startswith("dataset_info")
    }
    problems = problems_of(imported.spec, tmp_path / "spec.yaml")
    assert not problems or any(notice.attention for notice in imported.notices)
