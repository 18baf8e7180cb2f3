"""Questions from tokenized rows, and figures about written answers."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from tunebuild.prompt.example import IGNORED


@dataclass(frozen=True, slots=True)
class Question:
    """Token ids of a prompt and of the answer that is expected, and the number of their row."""

    prompt: list[int]
    expected: list[int]
    row: int


def spread(length: int, most: int) -> list[int]:
    """Numbers of at most so many of ``length`` things, evenly spread."""
    count = min(length, most)
    return [number * length // count for number in range(count)]


def questions_of(rows: Sequence[dict[str, Any]], most: int, stop_ids: Collection[int]) -> list[Question]:
    """The last answer of each row and what stands before it; evenly spread over the rows.

    Rows without a prompt, plain text for example, ask nothing.
    """
    found = []
    for index in spread(len(rows), most):
        ids, labels = rows[index]["input_ids"], rows[index]["labels"]
        end = max(n for n, label in enumerate(labels) if label != IGNORED) + 1
        start = end
        while start and labels[start - 1] != IGNORED:
            start -= 1
        if start:
            answer = ids[start:end]
            found.append(Question(list(ids[:start]), [t for t in answer if t not in stop_ids], index))
    return found


def measure_texts(answers: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """``exact_match``, ``token_f1`` and ``rouge_l``, each a mean between 0 and 1.

    ``exact_match`` is word for word, but for white space around it. The others are torchmetrics' SQuAD F1
    over words and ROUGE-L; words are runs of letters and digits of any script, in lower case.
    """
    from torchmetrics.functional.text import rouge_score, squad

    same = [a.strip() == b.strip() for a, b in zip(answers, expected, strict=True)]
    predictions = [{"prediction_text": _words(text), "id": str(n)} for n, text in enumerate(answers)]
    targets = [
        {"answers": {"answer_start": [0], "text": [_words(text)]}, "id": str(n)}
        for n, text in enumerate(expected)
    ]
    rouge = rouge_score(
        list(answers), list(expected), rouge_keys="rougeL", normalizer=_words, tokenizer=str.split
    )
    return {
        "exact_match": sum(same) / len(same),
        "token_f1": float(squad(predictions, targets)["f1"]) / 100,
        "rouge_l": float(rouge["rougeL_fmeasure"]),
    }


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
