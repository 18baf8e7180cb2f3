"""Writes ``faq_variants.jsonl``: the questions of ``faq.jsonl`` as people really type them.

A model that has only seen "What is a jar?" may stumble over "what is a jar". So every question is also
trained in four other spellings. Run this again after editing ``faq.jsonl``:

    python make_variants.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent

#: How a question is cased, and what it ends with. Spellings that are not listed here (first letter
#: small, capitals with a question mark, ...) are answered too, because each of their parts is.
SPELLINGS: tuple[tuple[Callable[[str], str], str], ...] = (
    (str.lower, ""),
    (str.lower, "?!"),
    (str, "."),
    (str.upper, "!"),
)


def variants(question: str) -> Iterator[str]:
    """The other spellings of a question that ends with a question mark."""
    words = question.rstrip("?")
    for case, ending in SPELLINGS:
        yield case(words) + ending


def render(faq: str) -> str:
    """The text of ``faq_variants.jsonl`` for the text of ``faq.jsonl``."""
    rows = [json.loads(line) for line in faq.splitlines()]
    return "".join(
        json.dumps({"question": variant, "answer": row["answer"]}, ensure_ascii=False) + "\n"
        for row in rows
        for variant in variants(row["question"])
    )


if __name__ == "__main__":
    (HERE / "faq_variants.jsonl").write_text(render((HERE / "faq.jsonl").read_text("utf-8")), "utf-8")
