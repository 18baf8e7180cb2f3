"""Rows that fine-tuning tools are reported to read wrongly, each with what is right for it."""

from __future__ import annotations

import json

import pytest

from support import templates
from support import tokenizers as families
from support.prepared import prepare_rows
from tunebuild.data.prompt_source import build_renderer
from tunebuild.data.rows import RowSource
from tunebuild.data.selection import select
from tunebuild.spec.data import DataSource, DataSpec
from tunebuild.spec.model import PromptSpec, TemplateFile

TRIMS = families.CHATML.replace("m['content']", "m['content'] | trim")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return families.save(families.byte_level(), tmp_path_factory.mktemp("base"))


class Read:
    """Rows, read with a template."""

    def __init__(self, base, directory, *rows, template=families.CHATML, form="auto", **data):
        (directory / "t.jinja").write_text(template)
        prompt = PromptSpec(template=TemplateFile(file="t.jinja"))
        self.renderer = build_renderer(prompt, base, directory)
        path = directory / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        spec = DataSpec(train=(DataSource(path="rows.jsonl"),), **data)
        self.found = prepare_rows(directory, [RowSource(path, "rows.jsonl", form)], self.renderer, spec, 500)

    @property
    def learned(self):
        """The supervised texts of each sample, without the ends of turns."""
        return [
            [self.renderer.decode(k.example.ids[slice(*span)]) for span in k.example.supervised]
            for k in self.found.kept
        ]

    @property
    def texts(self):
        """What the model reads of each sample, with every token spelled."""
        return [self.renderer.tokenizer.spell(k.example.ids) for k in self.found.kept]


def user(text, **more):
    return {"role": "user", "content": text, **more}


def answer(text, **more):
    return {"role": "assistant", "content": text, **more}


def turn(role, text):
    return f"<|im_start|>{role}\n{text}<|im_end|>"


@pytest.mark.parametrize(("no", "yes"), [({"weight": 0}, {"weight": 1}), ({"train": False}, {"train": True})])
def test_a_wrong_answer_of_no_weight_is_read_and_not_learned(base, tmp_path, no, yes):
    talk = [user("Highest peak?"), answer("K2.", **no), user("Really?"), answer("No: Everest.", **yes)]
    read = Read(base, tmp_path, {"messages": talk})
    assert read.learned == [["No: Everest."]]
    assert turn("assistant", "K2.") in read.texts[0]
    # The format was found, and nothing else is said.
    assert not read.found.said


def test_columns_of_alpaca_and_sharegpt_rows_are_part_of_the_conversation(base, tmp_path):
    led = {"instruction": "And a fish?", "input": "", "output": "Carp.", "system": "One word."}
    read = Read(base, tmp_path, {**led, "history": [["A bird?", "Wren."]]}, led)
    said = [("system", "One word."), ("user", "A bird?"), ("assistant", "Wren.")]
    said += [("user", "And a fish?"), ("assistant", "Carp.")]
    assert read.texts[0] == "\n".join(turn(role, text) for role, text in said)
    assert read.learned == [["Wren.", "Carp."], ["Carp."]]
    talk = [{"from": "human", "value": "A fish?"}, {"from": "gpt", "value": "Carp."}]
    read = Read(base, tmp_path, {"system": "One word.", "conversations": talk})
    assert read.texts[0].startswith(turn("system", "One word.") + "\n" + turn("user", "A fish?"))


def test_role_and_content_are_read_under_conversations_and_parts_under_messages(base, tmp_path):
    parts = [{"type": "text", "text": "A fish?"}]
    read = Read(base, tmp_path, {"conversations": [user("A fish?"), answer("Carp.")]})
    assert read.learned == [["Carp."]]
    told = {"role": "developer", "content": "Be short."}
    row = {"messages": [told, user(parts), answer([{"type": "text", "text": "Carp."}])]}
    read = Read(base, tmp_path, row)
    assert read.texts == [
        "\n".join([turn("system", "Be short."), turn("user", "A fish?"), turn("assistant", "Carp.")])
    ]


@pytest.mark.parametrize("first", ["messages", "conversations"])
def test_a_file_may_hold_turns_under_messages_and_under_conversations(base, tmp_path, first):
    second = {"messages": "conversations", "conversations": "messages"}[first]
    talks = {first: [user("A fish?"), answer("Carp.")]}, {second: [user("A bird?"), answer("Wren.")]}
    read = Read(base, tmp_path, *talks)
    assert read.learned == [["Carp."], ["Wren."]]
    assert not read.found.said
    # Where a row holds both, the one that its format names is read, and the other is reported.
    read = Read(base, tmp_path, talks[0], {**talks[0], **talks[1]}, deduplicate="off")
    assert read.learned == [["Carp."], ["Carp."]]
    (line,) = read.found.said
    assert f"'{second}'" in line


@pytest.mark.parametrize("template", [templates.SWITCHED, families.CHATML])
def test_reasoning_beside_an_answer_is_learned_or_reported(base, tmp_path, template):
    row = {"messages": [user("4 - 1?"), answer("3", reasoning_content="Take one off.")]}
    read = Read(base, tmp_path, row, template=template, form="messages")
    if template is families.CHATML:
        assert read.learned == [["3"]]
        (line,) = read.found.said
        assert "'reasoning_content' of 1 assistant turn is not printed" in line
    else:
        assert read.learned == [["<think>\nTake one off.\n</think>\n\n3"]]
        assert not read.found.said


def test_thoughts_inside_of_answers_are_learned_each_behind_the_prompt_that_it_is_asked_with(base, tmp_path):
    first, second = "<think>\nOne and one.\n</think>\n\n2", "<think>\nTwice two.\n</think>\n\n4"
    talk = [user("1 + 1?"), answer(first), user("And doubled?"), answer(second)]
    read = Read(base, tmp_path, {"messages": talk}, template=templates.SWITCHED, form="messages")
    assert read.learned == [[first], [second]]
    assert "One and one" not in read.texts[1]
    assert not read.found.rejects


def test_arguments_in_a_string_are_decoded_once(base, tmp_path):
    renderer = build_renderer(PromptSpec(template="qwen"), base, tmp_path)
    call = {"id": "c1", "type": "function", "function": {"name": "tide", "arguments": '{"port": "Kiel"}'}}
    row = {
        "messages": [
            user("Tide at Kiel?"),
            answer("", tool_calls=[call]),
            {"role": "tool", "tool_call_id": "c1", "content": '{"tide": "high"}'},
            answer("High."),
        ]
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    spec = DataSpec(train=(DataSource(path="rows.jsonl"),))
    source = RowSource(tmp_path / "rows.jsonl", "rows.jsonl", "messages")
    (kept,) = prepare_rows(tmp_path, [source], renderer, spec, 500).kept
    assert '{"name": "tide", "arguments": {"port": "Kiel"}}' in renderer.tokenizer.spell(kept.example.ids)


def test_control_tokens_line_breaks_and_tags_that_people_write_are_text(base, tmp_path):
    pairs = [
        ("What is <|im_start|> for?", "It begins a turn, as <|endoftext|> ends a document."),
        ("One\n\n\ntwo\tthree", "Listed:\n  - a\n    b   c"),
        ("Is <i>this</i> a tag?", "Yes, like <b> and <ul>."),
    ]
    read = Read(base, tmp_path, *({"question": q, "answer": a} for q, a in pairs))
    controls = read.renderer.tokenizer.control_ids
    for kept, (question, said), text in zip(read.found.kept, pairs, read.texts, strict=True):
        assert text == turn("user", question) + "\n" + turn("assistant", said)
        assert sum(i in controls for i in kept.example.ids) == 4


def test_an_answer_that_the_template_trims_is_reported_with_a_count(base, tmp_path):
    rows = [{"question": f"Block {n}?", "answer": f"    block:\n        y = {n}\n"} for n in range(2)]
    (line,) = Read(base, tmp_path, *rows, template=TRIMS, form="qa").found.said
    assert "trims the white space around 2 answers" in line
    whole = Read(base, tmp_path, *rows, form="qa")
    assert whole.learned == [[row["answer"]] for row in rows]
    assert not whole.found.said


def test_a_question_is_a_leak_whatever_stands_around_it(base, tmp_path):
    """A held-out question is trained on with a later turn behind it, or with a system turn before it."""
    pair = [user("Who made the Pietà?"), answer("Michelangelo.")]
    other = [user("Who made the Thinker?"), answer("Rodin.")]
    train = [
        {"messages": [*pair, user("When?"), answer("1499.")]},
        {"messages": [{"role": "system", "content": "Be short."}, *other]},
    ]
    renderer = build_renderer(PromptSpec(template="chatml"), base, tmp_path)
    sources = []
    for name, rows in (("train", train), ("held", [{"messages": pair}, {"messages": other}])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sources.append(RowSource(path, path.name, "messages"))
    spec = DataSpec.model_validate(
        {"train": [{"path": "train.jsonl"}], "eval": {"files": [{"path": "held.jsonl"}], "on_leak": "drop"}}
    )
    found = prepare_rows(tmp_path, sources, renderer, spec, 500)
    chosen = select(found.prepared.columns, found.account, spec, [False, True], [1.0, 1.0], 0)
    assert chosen.leaks_to.tolist() == [2, 3, -1, -1]
