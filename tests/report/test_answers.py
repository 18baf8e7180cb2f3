"""Answers side by side: each question as it was asked, and nothing that acts on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebuild.report.answers import as_answers

#: What templates write around a question: ChatML with a system turn, Llama 3, and one without line breaks.
CHATML = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n",
    "<|im_end|>\n<|im_start|>assistant\n",
)
LLAMA = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
)
MISTRAL = ("<s>[INST] ", " [/INST]")

words = st.text("abcdeWh ?.", min_size=1, max_size=30).map(str.strip).filter(bool)


def sample(prompt: str, tuned: str = "t") -> dict[str, str]:
    return {"prompt": prompt, "expected": "e", "base": "b", "tuned": tuned}


def asked(text: str) -> list[str]:
    return [line.removeprefix("asked").strip() for line in text.splitlines() if line.startswith("asked")]


@given(st.lists(words, min_size=2, max_size=6, unique=True), st.sampled_from([CHATML, LLAMA]))
def test_a_question_is_shown_without_what_the_template_writes(questions, template):
    before, behind = template
    shown = asked(as_answers([sample(before + question + behind) for question in questions], 6))
    assert shown == [" ".join(question.split()) for question in questions]


@given(st.lists(words, min_size=1, max_size=4, unique=True))
def test_a_question_is_never_cut(questions):
    before, behind = MISTRAL
    shown = asked(as_answers([sample(before + question + behind) for question in questions], 4))
    assert all(" ".join(q.split()) in text for q, text in zip(questions, shown, strict=True))


def test_answers_stand_below_each_other_and_no_more_than_asked_for():
    text = as_answers([sample(f"{CHATML[0]}Question {n}?{CHATML[1]}") for n in range(5)], 2)
    assert text.splitlines() == [
        "asked       Question 0?", "expected    e", "base says   b", "tuned says  t", "",
        "asked       Question 1?", "expected    e", "base says   b", "tuned says  t",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "shown"),
    [("a\x1b[31mb", r"a\x1b[31mb"), ("a\u202eb", r"a\u202eb"), ("a\n\nb", "a b"), ("", "(nothing)")],
)
def test_nothing_said_acts_on_the_terminal(said, shown):
    assert f"tuned says  {shown}\n" in as_answers([sample("q", said)], 1)
