"""Chooses what the endpoint must reproduce before it is ready, out of what was measured anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tunebuild.evaluate.texts import Question, spread
from tunebuild.prompt.example import IGNORED
from tunebuild.serve.parity import Parity, Row, Written

_ROWS, _TOKENS = 8, 1024  # a few seconds of the slowest CPU
_ANSWERS, _ANSWER_TOKENS = 3, 24


def choose_parity(
    dtype: str,
    rows: Sequence[dict[str, Any]],
    tuned: torch.Tensor,
    base: torch.Tensor,
    questions: Sequence[Question],
    answers: Sequence[list[int]],
    max_tokens: int,
) -> Parity:
    """What the bundle carries.

    Args:
        dtype: the precision that was measured in.
        rows: rows that were measured, in order.
        tuned, base: log-probabilities ``[positions, vocabulary]`` at their supervised tokens, of the served
            model and of the base.
        questions: prompts that were answered.
        answers: the served model's greedy answers to them.
        max_tokens: of those answers.
    """
    places = [[n for n, x in enumerate(row["labels"]) if n and x != IGNORED] for row in rows]
    starts = [sum(map(len, places[:number])) for number in range(len(rows))]
    kept: list[Row] = []
    room = _TOKENS
    for number in spread(len(rows), _ROWS):
        if not places[number] or (kept and len(rows[number]["input_ids"]) > room):
            continue
        at, start = places[number], starts[number]
        if len(rows[number]["input_ids"]) > room:  # the only one: its beginning
            at = [place for place in at if place < room] or at[:1]
        ids = list(rows[number]["input_ids"][: at[-1] + 1])
        room -= len(ids)
        index = torch.tensor([ids[place] for place in at])[:, None]
        here = slice(start, start + len(at))
        kept.append(
            Row(
                ids=ids,
                at=at,
                tuned=tuned[here].gather(1, index)[:, 0].tolist(),
                base=base[here].gather(1, index)[:, 0].tolist(),
            )
        )
    most = min(max_tokens, _ANSWER_TOKENS)
    written = [
        Written(prompt=questions[n].prompt, answer=answers[n][:most], max_tokens=most)
        for n in spread(len(questions), _ANSWERS)
        if len(questions[n].prompt) <= _TOKENS
    ]
    return Parity(dtype=dtype, rows=kept, answers=written)
