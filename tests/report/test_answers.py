"""Answers of base and tuned model side by side, below each question as it was asked."""

from __future__ import annotations

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


def test_an_answer_is_one_paragraph_and_none_is_said_to_be_none():
    assert "tuned says  a b\n" in as_answers([sample("q", "a\n\nb")], 1)
    assert "tuned says  (nothing)\n" in as_answers([sample("q", "")], 1)
