"""Rows of a model whose layers keep a state: linear attention, convolutions.

A state has seen all tokens before it, padding included, and there is no mask that would take one out again.
So each row has a cache of its own and goes through the model alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache


class SeparateRows:
    """Running rows, with the interface of :class:`~tunebuild.serve.engines.batch.Batch`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._caches: list[DynamicCache] = []

    def __len__(self) -> int:
        return len(self._caches)

    def join(self, prompts: Sequence[list[int]]) -> torch.Tensor:
        """Run prompts through the model and append them as rows; logits of their next tokens.

        Returns ``[prompts, vocabulary]`` in float32.
        """
        caches = [DynamicCache(config=self._model.config) for _ in prompts]
        logits = [self._forward(prompt, cache) for prompt, cache in zip(prompts, caches, strict=True)]
        self._caches += caches  # all of them, or none where one failed
        return torch.cat(logits)

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to every row; the logits of the next ``[rows, vocabulary]``."""
        return torch.cat([self._forward([t], c) for t, c in zip(tokens, self._caches, strict=True)])

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        self._caches = [self._caches[row] for row in rows]

    def _forward(self, tokens: list[int], cache: DynamicCache) -> torch.Tensor:
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.tensor([tokens], device=self._device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits
