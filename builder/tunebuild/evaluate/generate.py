"""Answers of a model, many at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tunebuild.serve.engines.batch import batch_for

_ROWS = 32  # answered at the same time


def generate(
    model: Any,
    prompts: Sequence[list[int]],
    max_tokens: int,
    stop_ids: Collection[int],
    positions: int | None = None,
) -> list[list[int]]:
    """The likeliest answers, token by token, by the batch that the server gives them with at temperature 0.

    The model's own options for generating, such as a penalty for repetition, are not used: the server knows
    nothing of them.

    Args:
        model: a causal language model of transformers, perhaps with an adapter.
        prompts: token ids, none empty.
        max_tokens: longest answer.
        stop_ids: tokens that end one.
        positions: most tokens of a prompt and its answer together; no end if left out. Beyond what a model
            has positions for it fails, if they are learned, or writes nonsense.

    Returns:
        Ids of each answer, without what ended it; none of a prompt that leaves no position for any.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    room = [max_tokens if positions is None else min(max_tokens, positions - len(p)) for p in prompts]
    # Prompts of like length together, so that little is padding.
    order = sorted((i for i in range(len(prompts)) if room[i] > 0), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), _ROWS):
        batch, running = batch_for(model), order[start : start + _ROWS]
        logits = batch.join([prompts[index] for index in running])
        while running:
            chosen = logits.argmax(-1).tolist()
            kept = []
            for row, (index, token) in enumerate(zip(running, chosen, strict=True)):
                if token not in stop_ids:
                    answers[index].append(token)
                    if len(answers[index]) < room[index]:
                        kept.append(row)
            if len(kept) < len(running):
                batch.keep(kept)
                running, chosen = [running[row] for row in kept], [chosen[row] for row in kept]
            if running:
                logits = batch.step(chosen)
    return answers
