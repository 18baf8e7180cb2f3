"""Answers of a model, many at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

_ROWS = 32  # answered at the same time


def generate(
    model: Any, prompts: Sequence[list[int]], max_tokens: int, stop_ids: Collection[int]
) -> list[list[int]]:
    """The likeliest answers, token by token, as the server gives them at temperature 0.

    The model's own options for generating are not used, and lost to it.

    Args:
        model: a causal language model of transformers.
        prompts: token ids, none empty.
        max_tokens: longest answer.
        stop_ids: tokens that end one.

    Returns:
        Ids of each answer, without what ended it.
    """
    answers: list[list[int]] = []
    # Prompts of like length together, so that little is padding.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), _ROWS):
        answers += _batch(model, [prompts[i] for i in order[start : start + _ROWS]], max_tokens, stop_ids)
    place = {index: n for n, index in enumerate(order)}
    return [answers[place[index]] for index in range(len(prompts))]


def _batch(
    model: Any, prompts: list[list[int]], max_tokens: int, stop_ids: Collection[int]
) -> list[list[int]]:
    width = max(map(len, prompts))
    # Padded on the left; hidden by the mask, so its id does not matter.
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    # What is left out here would be filled in from the model's own, such as a penalty for repetition, of
    # which the server knows nothing.
    model.generation_config = config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=sorted(stop_ids),
        pad_token_id=min(stop_ids),
    )
    with torch.inference_mode():
        made = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    return [_until(row[width:].tolist(), stop_ids) for row in made.cpu()]


def _until(ids: list[int], stop_ids: Collection[int]) -> list[int]:
    end = next((n for n, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[:end]
