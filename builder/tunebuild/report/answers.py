"""Answers of the base beside those of the tuned model, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

_WIDTH = 100
_NAMES = (("expected", "expected"), ("base", "base says"), ("tuned", "tuned says"))


def as_answers(samples: Sequence[Mapping[str, str]], most: int) -> str:
    """The first so many of the questions, and what was expected and said.

    Args:
        samples: written answers as the evaluation records them: ``prompt``, ``expected``, ``base`` and
            ``tuned``.
        most: how many of them.
    """
    asked = _questions([sample["prompt"] for sample in samples])
    return "\n".join(
        "".join(_lines(question, sample))
        for question, sample in list(zip(asked, samples, strict=True))[:most]
    )


def _lines(question: str, sample: Mapping[str, str]) -> Iterator[str]:
    for label, text in (("asked", question), *((label, sample[name]) for name, label in _NAMES)):
        indent = f"{label:<10}  "
        shown = " ".join(text.split()) or "(nothing)"
        yield textwrap.fill(shown, _WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)) + "\n"


def _questions(prompts: Sequence[str]) -> list[str]:
    """Prompts without what all begin and end with, in whole lines: the system turn, the tokens of roles.

    Where lines do not tell, because a template writes none, prompts are left as they are.
    """
    if len(set(prompts)) < 2:
        return list(prompts)
    shared = _common_beginning(prompts)
    first = shared.rfind("\n") + 1
    rest = [prompt[first:] for prompt in prompts]
    ending = _common_beginning([prompt[::-1] for prompt in rest])[::-1]
    # Questions may share their last letters, too; a token of the template begins with one of these.
    starts = [ending.find(sign) for sign in "<[\n" if sign in ending]
    return [prompt[: len(prompt) - len(ending) + min(starts)] if starts else prompt for prompt in rest]


def _common_beginning(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    return first[: next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
