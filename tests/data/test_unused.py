"""What a row says is trained on, or is counted and said: nothing is dropped without a word."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import tokenizers as families
from support.prepared import prepare_rows
from tunebuild.data.prompt_source import build_renderer
from tunebuild.data.rows import RowSource
from tunebuild.data.unused import Unused, as_printed
from tunebuild.prompt import Renderer
from tunebuild.spec.data import DataSource, DataSpec
from tunebuild.spec.model import PromptSpec, TemplateFile

TRIMS = families.CHATML.replace("m['content']", "m['content'] | trim")
REASONS = families.CHATML.replace(
    "m['content']",
    "('<r>' + m['reasoning_content'] + '</r>' if m.get('reasoning_content') else '') + m['content']",
)
# As Qwen 3 does: reasoning of earlier answers is left out of the history.
LAST_REASONS = REASONS.replace(
    "if m.get('reasoning_content')",
    "if m.get('reasoning_content') and loop.last and m['role'] == 'assistant'",
)
NO_SYSTEM = families.CHATML.replace("in messages -%}", "in messages if m['role'] != 'system' -%}")
NAMES = families.CHATML.replace(
    "m['role'] +", "m['role'] + (' ' + m['name'] if m.get('name') and m['role'] == 'user' else '') +"
)


def renderer_of(tmp_path, template=families.CHATML, **prompt) -> Renderer:
    base = tmp_path / "base"
    if not base.exists():
        families.save(families.byte_level(), base)
    (tmp_path / "t.jinja").write_text(template)
    return build_renderer(PromptSpec(template=TemplateFile(file="t.jinja"), **prompt), base, tmp_path)


def prepared(tmp_path, rows, template=families.CHATML, format_name="messages", *, where=None, **data):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = RowSource(path, path.name, format_name, {}, where or {})
    spec = DataSpec(train=(DataSource(path="rows.jsonl"),), **data)
    return prepare_rows(tmp_path, [source], renderer_of(tmp_path, template), spec)


def user(text, **more):
    return {"role": "user", "content": text, **more}


def answer(text, **more):
    return {"role": "assistant", "content": text, **more}


def learned(renderer, kept):
    """The supervised text, without the ends of turns."""
    ids = kept.example.ids
    return [renderer.decode(ids[start:end]) for start, end in kept.example.supervised]


@pytest.mark.parametrize("mask", [{"weight": 0}, {"train": False}])
def test_a_masked_answer_is_context_without_loss(tmp_path, mask):
    talk = [user("Longest river?"), answer("The Po.", **mask), user("Sure?"), answer("No: the Nile.")]
    read = prepared(tmp_path, [{"messages": talk}])
    (kept,) = read.kept
    renderer = renderer_of(tmp_path)
    assert learned(renderer, kept) == ["No: the Nile."]
    assert "The Po." in renderer.tokenizer.decode(kept.example.ids)
    assert not read.said
    unmasked = prepared(tmp_path, [{"messages": [{k: t[k] for k in ("role", "content")} for t in talk]}])
    assert unmasked.kept[0].example.ids == kept.example.ids
    assert learned(renderer, unmasked.kept[0]) == ["The Po.", "No: the Nile."]


def test_a_masked_answer_gives_no_sample_where_each_answer_is_one(tmp_path):
    talk = [
        user("2 + 2?"),
        answer("5", reasoning_content="a guess", weight=0),
        user("And 3 + 3?"),
        answer("6", reasoning_content="three twice"),
    ]
    read = prepared(tmp_path, [{"messages": talk}], LAST_REASONS)
    (kept,) = read.kept
    assert learned(renderer_of(tmp_path), kept) == ["<r>three twice</r>6"]


def test_rows_that_train_other_answers_are_not_duplicates(tmp_path):
    talk = [user("Longest river?"), answer("The Po."), user("Sure?"), answer("No: the Nile.")]
    masked = [talk[0], {**talk[1], "weight": 0}, *talk[2:]]
    read = prepared(tmp_path, [{"messages": talk}, {"messages": masked}, {"messages": masked}])
    digests = [tuple(row) for row in read.prepared.columns.row.tolist()]
    assert digests[0] != digests[1] == digests[2]


def test_reasoning_is_trained_where_it_is_printed_and_counted_where_not(tmp_path):
    talk = [user("2 + 3?"), answer("5", reasoning_content="Add them."), user("+ 1?"), answer("6")]
    read = prepared(tmp_path, [{"messages": talk}] * 2)
    (line,) = read.said
    assert line.startswith("rows.jsonl: 'reasoning_content' of 2 assistant turns is not printed by template")
    assert read.kept[0].messages[1] == answer("5")
    for template in (REASONS, LAST_REASONS):
        assert not prepared(tmp_path, [{"messages": talk}], template).said


def test_calls_are_one_however_their_arguments_are_written(tmp_path):
    def row(arguments):
        call = {"id": "c9", "type": "function", "function": {"name": "depth", "arguments": arguments}}
        return {"messages": [user("How deep?"), answer("", tool_calls=[call]), user("?"), answer("Deep.")]}

    base = families.save(families.byte_level(), tmp_path / "base")
    renderer = build_renderer(PromptSpec(template="qwen"), base, tmp_path)
    spec = DataSpec(train=(DataSource(path="rows.jsonl"),), deduplicate="off")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row(a)) + "\n" for a in ({"lake": "Bled"}, '{"lake": "Bled"}')))
    kept = prepare_rows(tmp_path, [RowSource(path, "rows.jsonl", "messages")], renderer, spec).kept
    assert kept[0].example == kept[1].example
    assert '"arguments": {"lake": "Bled"}' in renderer.tokenizer.decode(kept[0].example.ids)


def test_a_trimmed_answer_is_counted(tmp_path):
    rows = [{"question": "Indent?", "answer": text} for text in ("  x = 1\n", "  y", "z\n\n", "plain")]
    (line,) = prepared(tmp_path, rows, TRIMS, "qa").said
    assert "trims the white space around 3 answers" in line
    assert not prepared(tmp_path, rows, format_name="qa").said


def test_a_content_that_is_not_printed_or_is_changed_is_counted(tmp_path):
    rows = [
        {"messages": [{"role": "system", "content": "Be brief."}, user("Which way?"), answer("Westwards.")]}
    ]
    (line,) = prepared(tmp_path, rows, NO_SYSTEM).said
    assert "the content of 1 system turn is not printed" in line
    shouts = families.CHATML.replace("m['content']", "m['content'] | upper")
    said = prepared(tmp_path, rows, shouts).said
    assert any("changes the content of 1 assistant turn" in line for line in said)


def test_columns_of_no_use_are_counted_but_not_those_that_choose(tmp_path):
    rows = [{"question": "q", "answer": "a", "id": n, "lang": "en", "note": None} for n in range(3)]
    said = prepared(tmp_path, rows, format_name="qa", where={"lang": "en"}, deduplicate="off").said
    assert said == ["rows.jsonl: column 'id' is not used (3 rows)"]


def test_what_a_system_column_says_is_in_the_prompt(tmp_path):
    rows = [{"system": "One word.", "instruction": "Now?", "output": "Ice.", "history": [["Then?", "Tea."]]}]
    (kept,) = prepared(tmp_path, rows, format_name="alpaca").kept
    renderer = renderer_of(tmp_path)
    assert learned(renderer, kept) == ["Tea.", "Ice."]
    text = renderer.tokenizer.decode(kept.example.ids)
    assert [text.index(part) for part in ("One word.", "Then?", "Tea.", "Now?", "Ice.")] == sorted(
        text.index(part) for part in ("One word.", "Then?", "Tea.", "Now?", "Ice.")
    )


TEMPLATES = {"plain": families.CHATML, "names": NAMES, "reasons": REASONS, "last": LAST_REASONS}
KEYS = st.sampled_from(["name", "reasoning_content", "id", "ts", "content_type"])
EXTRA = st.dictionaries(KEYS, st.text("abc", min_size=1, max_size=6), max_size=3)
TALKS = st.lists(
    st.tuples(
        st.text("xyz ", min_size=1, max_size=9).filter(str.strip), EXTRA, st.text("uvw", min_size=1), EXTRA
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(TEMPLATES)), TALKS)
def test_any_key_of_a_turn_changes_the_samples_or_is_counted(tmp_path, name, talk):
    renderer = renderer_of(tmp_path, TEMPLATES[name])
    turns = [turn for q, more, a, others in talk for turn in (user(q, **more), answer(a, **others))]
    kept, account = as_printed(renderer, turns)
    extra = sum(len(turn) - 2 for turn in turns)
    printed = sum(len(turn) - 2 for turn in kept)
    assert printed + sum(n for what, n in account.items() if what.kind == "key") == extra

    def ids(conversation):
        return [example.ids for _, example in renderer.examples(conversation)]

    whole = ids(turns)
    assert ids(kept) == whole
    for place, turn in enumerate(kept):
        for key in turn.keys() - {"role", "content"}:
            without = [{k: v for k, v in t.items() if (at, k) != (place, key)} for at, t in enumerate(kept)]
            assert ids(without) != whole, (name, key)


def test_unused_keys_are_described():
    lines = {
        Unused("column", name="id").words(1, "template 't'"),
        Unused("key", "tool", "tool_call_id").words(2, "template 't'"),
        Unused("content", "tool").words(1000),
        Unused("trimmed", "assistant").words(1, "template 't'"),
    }
    assert lines == {
        "column 'id' is not used (1 row)",
        "'tool_call_id' of 2 tool turns is not printed by template 't'",
        "the content of 1,000 tool turns is not printed by the template",
        "template 't' trims the white space around 1 answer; the model does not learn it",
    }


def test_tools_are_in_the_prompt_where_it_lists_them_and_counted_where_not(tmp_path):
    talk = [user("Sun?"), answer("Yes, all day.")]
    rows = [{"messages": talk, "tools": [{"name": "f", "description": "d"}]}]
    lists = "{%- if tools -%}{{- tools | tojson -}}{%- endif -%}"
    for name, template in (("with", lists + families.CHATML), ("without", families.CHATML)):
        (tmp_path / name).mkdir()
        read = prepared(tmp_path / name, rows, template)
        text = renderer_of(tmp_path / name, template).tokenizer.decode(read.kept[0].example.ids)
        printed = text.startswith('[{"type": "function", "function": {"name": "f", "description": "d"}}]')
        assert printed == (name == "with")
        assert (read.said == []) == printed
    assert read.said == ["rows.jsonl: template 't.jinja' lists no tools, and 1 row has some"]
