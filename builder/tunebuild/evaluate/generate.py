"""Answers of a model, many at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tunebuild.serve.engines._batch import Batch

_ROWS = 32  # answered at the same time


def generate(
    model: Any, prompts: Sequence[list[int]], max_tokens: int, stop_ids: Collection[int]
) -> list[list[int]]:
    """The likeliest answers, token by token, by the batch that the server gives them with at temperature 0.

    The model's own options for generating, such as a penalty for repetition, are not used: the server knows
    nothing of them.

    Args:
        model: a causal language model of transformers, perhaps with an adapter.
        prompts: token ids, none empty.
        max_tokens: longest answer.
        stop_ids: tokens that end one.

    Returns:
        Ids of each answer, without what ended it.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    # Prompts of like length together, so that little is padding.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), _ROWS):
        batch, running = Batch(model), order[start : start + _ROWS]
        logits = batch.join([prompts[index] for index in running])
        while running:
            chosen = logits.argmax(-1).tolist()
            kept = []
            for row, (index, token) in enumerate(zip(running, chosen, strict=True)):
                if token not in stop_ids:
                    answers[index].append(token)
                    if len(answers[index]) < max_tokens:
                        kept.append(row)
            if len(kept) < len(running):
                batch.keep(kept)
                running, chosen = [running[row] for row in kept], [chosen[row] for row in kept]
            if running:
                logits = batch.step(chosen)
    return answers
