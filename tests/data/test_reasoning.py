"""Reasoning in rows is trained on where the template prints it, and is counted and said where it does not."""

from __future__ import annotations

import json

import pytest

from support import real_tokenizers, templates
from support import tokenizers as families
from support.prepared import prepare_rows
from tunebuild.client.checks import read_contract
from tunebuild.data.prompt_source import build_renderer
from tunebuild.data.reject_limit import check_rejects
from tunebuild.data.rows import RowSource
from tunebuild.data.stage import DataStage
from tunebuild.errors import TunebuildError
from tunebuild.spec.data import DataSource, DataSpec
from tunebuild.spec.model import PromptSpec, TemplateFile
from tunebuild.store import Silent

LATER = templates.SWITCHED.replace("if loop.index0 > last.user", "if loop.index0 > last.user and reasoning")
KEYED = [
    {"role": "user", "content": "2 + 3?"},
    {"role": "assistant", "reasoning_content": "Add two and three.", "content": "5"},
]
INSIDE = [
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\n4"},
    {"role": "user", "content": "And doubled?"},
    {"role": "assistant", "content": "<think>\nFour times two.\n</think>\n\n8"},
]
PLAIN = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
SPEC = DataSpec(train=(DataSource(path="rows.jsonl"),))


def renderer_of(tmp_path, template, **prompt):
    base = tmp_path / "base"
    if not base.exists():
        families.save(families.byte_level(), base)
    (tmp_path / "t.jinja").write_text(template)
    return build_renderer(PromptSpec(template=TemplateFile(file="t.jinja"), **prompt), base, tmp_path)


def written(tmp_path, talks):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    return RowSource(path, path.name, "messages")


def read(tmp_path, renderer, *talks, **data):
    spec = SPEC.model_copy(update=data)
    return prepare_rows(tmp_path, [written(tmp_path, talks)], renderer, spec, 500)


def targets(renderer, found):
    spell = renderer.tokenizer._plain.decode
    return [spell(k.example.ids[slice(*k.example.supervised[-1])], False) for k in found.kept]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize("template", [templates.SWITCHED, templates.OPENED, templates.DROPPED])
def test_reasoning_is_trained_under_each_of_its_names(tmp_path, template, key):
    renderer = renderer_of(tmp_path, template)
    user, answer = KEYED
    named = {"role": "assistant", "content": answer["content"], key: answer["reasoning_content"]}
    found = read(tmp_path, renderer, [user, named])
    (target,) = targets(renderer, found)
    assert target.endswith("Add two and three.\n</think>\n\n5<|im_end|>")
    assert not found.said
    assert not found.rejects


def test_reasoning_that_no_template_prints_is_counted(tmp_path):
    renderer = renderer_of(tmp_path, families.CHATML)
    found = read(tmp_path, renderer, KEYED)
    assert targets(renderer, found) == ["5<|im_end|>"]
    (line,) = found.said
    assert "'reasoning_content' of 1 assistant turn is not printed" in line


@pytest.mark.parametrize("template", [templates.SWITCHED, templates.OPENED, templates.DROPPED, LATER])
def test_a_history_that_drops_reasoning_gives_a_sample_for_each_answer(tmp_path, template):
    renderer = renderer_of(tmp_path, template)
    found = read(tmp_path, renderer, INSIDE)
    assert [t.rpartition("<think>\n")[2] for t in targets(renderer, found)] == [
        "Two and two.\n</think>\n\n4<|im_end|>",
        "Four times two.\n</think>\n\n8<|im_end|>",
    ]
    assert all(len(kept.example.supervised) == 1 for kept in found.kept)
    assert "Two and two" not in renderer.tokenizer.decode(found.kept[1].example.ids)
    assert not found.said


@pytest.mark.parametrize("template", [families.CHATML, templates.HARMONY])
def test_a_block_that_is_text_to_the_template_is_counted(tmp_path, template):
    channels = template.replace("<|end|>", "<|im_end|>").replace("<|return|>", "<|im_end|>")
    renderer = renderer_of(tmp_path, channels)
    (line,) = read(tmp_path, renderer, INSIDE).said
    assert "prints the <think> block in 2 assistant turns as ordinary text" in line


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"reasoning": "One.", "thinking": "Two."}, "'reasoning' and 'thinking' that differ"),
        ({"reasoning_content": 7}, "'reasoning_content' that is no text"),
    ],
)
def test_reasoning_that_cannot_be_meant_is_refused(tmp_path, turn, reason):
    user, answer = PLAIN
    renderer = renderer_of(tmp_path, templates.SWITCHED)
    found = read(tmp_path, renderer, PLAIN, [user, {**answer, **turn}], max_rejected=0.9)
    (refused,) = found.rejects
    assert reason in refused.reason


@pytest.mark.parametrize(
    ("talk", "prompt", "code", "words"),
    [
        (PLAIN, {"plain_answers": "refuse"}, "no-reasoning", "prompt closes it"),
        (KEYED, {"plain_answers": "prefill"}, "reasoning-closed", "plain_answers: close"),
    ],
)
def test_a_prompt_that_fits_no_row_is_one_problem_of_the_prompt(tmp_path, talk, prompt, code, words):
    renderer = renderer_of(tmp_path, templates.OPENED, **prompt)
    found = read(tmp_path, renderer, *[talk] * 16)
    with pytest.raises(TunebuildError) as refused:
        check_rejects(0, found.account, 0.0)
    (problem,) = refused.value.diagnostics
    assert problem.code == code
    assert "16 of 16 rows" in problem.message
    assert words in problem.hint
    assert problem.path.startswith("prompt")


def test_what_would_do_nothing_is_refused(tmp_path):
    with pytest.raises(TunebuildError, match="opens no block"):
        renderer_of(tmp_path, templates.SWITCHED, plain_answers="prefill")


@pytest.mark.parametrize("template", [templates.SWITCHED, templates.OPENED, families.CHATML])
def test_verify_expects_reasoning_apart_from_the_answer(tmp_path, template):
    renderer = renderer_of(tmp_path, template)
    short = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "one"}]
    source = written(tmp_path, [KEYED, INSIDE[:2], short])
    stage = DataStage(
        SPEC,
        (source,),
        (),
        ("sha256:" + "0" * 64,),
        renderer,
        tmp_path / "base",
        200,
        0,
        vocabulary_size=10_000,
    )
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    stage.run(work, out, Silent())
    checks = read_contract(out / "prompt").checks
    found = {c.messages[-1]["content"]: (c.reasoning, c.expected) for c in checks}
    known = template != families.CHATML
    assert found == {
        "2 + 3?": ("Add two and three." if known else "", "5"),
        "2 + 2?": ("Two and two.", "4") if known else ("", INSIDE[1]["content"]),
        "1?": ("", "one"),
    }


def test_qwen_3_prepares_the_rows_of_both_kinds(tmp_path):
    renderer = build_renderer(PromptSpec(), real_tokenizers.real("qwen3").directory, tmp_path)
    found = read(tmp_path, renderer, KEYED, INSIDE)
    assert targets(renderer, found) == [
        "<think>\nAdd two and three.\n</think>\n\n5<|im_end|>",
        "<think>\nTwo and two.\n</think>\n\n4<|im_end|>",
        "<think>\nFour times two.\n</think>\n\n8<|im_end|>",
    ]
    assert not found.said
    assert not found.rejects
