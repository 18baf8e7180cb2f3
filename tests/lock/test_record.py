"""What a lock records of a spec: its meaning, not its spelling; differences in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunebuild.lock.record import SpecRecord, field_changes, flat, record_of
from tunebuild.spec import load_spec

SPEC = {
    "apiVersion": "tunebuild/v1",
    "name": "desk",
    "data": {
        "train": [{"path": "a.jsonl", "format": "qa", "columns": {"answer": "the.reply"}, "weight": 0.5}],
        "eval": {"fraction": 0.1},
    },
    "model": {"base": "org/model", "revision": "0" * 40},
    "prompt": {"template": "chatml", "system": "Be brief."},
    "tuning": {"method": "lora", "epochs": 3, "lora": {"r": 8, "targets": ["q_proj", "v_proj"]}},
    "gates": {"merge_kl": {"max": 0.3}},
}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    directory = tmp_path_factory.mktemp("specs")
    (directory / "a.jsonl").write_text('{"question": "Q?", "the.reply": "A."}\n')
    (directory / "b.jsonl").write_text('{"question": "Q?", "the.reply": "A."}\n')

    def of(spec, *overrides):
        text = spec if isinstance(spec, str) else json.dumps(spec)
        (directory / "spec.yaml").write_text(text)
        return record_of(load_spec(directory / "spec.yaml", overrides).spec)

    return of


def changed(record, *overrides):
    return list(field_changes(record(SPEC), record(SPEC, *overrides)))


def _shuffled(value, order):
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: _shuffled(value[key], order) for key in keys}
    return [_shuffled(item, order) for item in value] if isinstance(value, list) else value


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.randoms(use_true_random=False))
def test_comments_key_order_and_spelt_out_defaults_have_no_say(record, order):
    lines = json.dumps(_shuffled(SPEC, order), indent=order.choice([1, 2, 4])).splitlines()
    text = "".join(f"{line}  # {order.random()}\n" for line in lines)
    assert record(text, "tuning.seed=0", "merge.strategy=auto") == record(SPEC)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tuning.epochs=5", ("tuning.epochs", "3", "5")),
        ("tuning.lora.alpha=7", ("tuning.lora.alpha", "32", "7")),
        ("tuning.lora.targets=[q_proj]", ("tuning.lora.targets", "[q_proj, v_proj]", "[q_proj]")),
        ("data.train[0].weight=null", ("data.train[0].weight", "0.5", "1")),
        ("prompt.system=''", ("prompt.system", "Be brief.", "''")),
        ("gates.merge_kl=null", ("gates.merge_kl.max", "0.3", "0.1")),
        ("data.train[1]={path: b.jsonl}", ("data.train[1].path", "", "b.jsonl")),
        (
            'data.train[0].where={"the.reply": A.}',
            ('data.train[0].where."the.reply"', "", "A."),
        ),
    ],
)
def test_a_difference_is_named_with_both_values(record, override, words):
    assert words in changed(record, override)


def test_of_long_texts_what_differs_is_shown(record):
    text = "You are the support desk of a company. " * 4
    old, new = (record(SPEC, f"prompt.system={text}{end}") for end in ("Be kind.", "Be brief."))
    ((name, before, after),) = field_changes(old, new)
    assert name == "prompt.system"
    assert "Be kind." in before
    assert "Be brief." in after
    assert before.startswith("...")
    assert max(len(before), len(after)) < 70


def test_a_default_that_is_another_in_this_version_is_named(record):
    now = record(SPEC)
    before = now.model_copy(
        update={"digest": "sha256:0", "defaults": {**now.defaults, "merge.strategy": "original"}}
    )
    assert list(field_changes(before, now)) == [("merge.strategy (default)", "original", "auto")]
    unnamed = now.model_copy(update={"digest": "sha256:0"})
    assert [name for name, _, _ in field_changes(unnamed, now)] == ["spec"]


def test_a_default_matters_only_where_it_is_left(record):
    now = record(SPEC, "merge.strategy=original")
    assert "merge.strategy" not in now.defaults
    shared = SpecRecord(digest="sha256:0", fields=now.fields, defaults={"merge.strategy": "auto"})
    assert [name for name, _, _ in field_changes(shared, now)] == ["spec"]


_keys = st.text(max_size=4)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_keys, _values, max_size=3), st.dictionaries(_keys, _values, max_size=3))
def test_different_values_have_different_fields(one, other):
    assert (flat(one) == flat(other)) == (one == other) or json.dumps(one) == json.dumps(other)
