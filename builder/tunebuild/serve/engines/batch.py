"""A batch of running answers whose members come and go between two steps of the model.

All rows share one cache of keys and values, padded on the left to the longest row. A row that joins or
leaves changes the batch dimension only, so no row waits for another to finish.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tunebuild.serve.engines._cache import GrowingCache
from tunebuild.serve.engines._prefix import split_prefix
from tunebuild.serve.engines._rows import SeparateRows
from tunebuild.serve.engines.caches import cache_kind


def batch_for(model: Any) -> Batch | SeparateRows:
    """An empty batch of a model: padded together where its cache allows that, else row by row."""
    return SeparateRows(model) if cache_kind(model) == "state" else Batch(model)


class Batch:
    """Rows of a running batch.

    Attributes:
        mask: ``[rows, length]`` of int64, 1 where the cache holds a token of the row.
        cache: keys and values ``[rows, heads, length, width]`` a layer.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._prefix = split_prefix(model)
        self._device = next(model.parameters()).device
        self._clear()

    def _clear(self) -> None:
        self.mask = torch.zeros(0, 0, dtype=torch.long, device=self._device)
        self.cache = GrowingCache([])

    def __len__(self) -> int:
        return self.mask.shape[0]

    def join(self, prompts: Sequence[list[int]]) -> torch.Tensor:
        """Run prompts through the model and append them as rows; logits of their next tokens.

        Returns ``[prompts, vocabulary]`` in float32.
        """
        if self._prefix and len(prompts) > 1:
            # Padding would come between the prefix and the prompt, and count as distance to a window.
            return torch.cat([self.join([prompt]) for prompt in prompts])
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=self._device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self._device)
        # Sliding-window layers keep all keys, so that rows can be padded alike; the window itself is in the
        # attention mask.
        cache = GrowingCache(self._prefix)
        if self._prefix:
            mask = _pad_left(mask, longest + cache.get_seq_length(), 1)
        positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -longest:]
        logits = self._forward(ids, mask, positions, cache)
        if not len(self):
            self.mask, self.cache = mask, cache
            return logits
        length = max(self.mask.shape[1], mask.shape[1])
        self.mask = torch.cat([_pad_left(self.mask, length), _pad_left(mask, length)])
        for ours, theirs in zip(self.cache.layers, cache.layers, strict=True):
            ours.keys = torch.cat([_pad_cache(ours.keys, length), _pad_cache(theirs.keys, length)])
            ours.values = torch.cat([_pad_cache(ours.values, length), _pad_cache(theirs.values, length)])
        return logits

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to every row; the logits of the next ``[rows, vocabulary]``."""
        positions = self.mask.sum(1, keepdim=True)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self), 1)], dim=1)
        ids = torch.tensor(tokens, device=self._device)[:, None]
        return self._forward(ids, self.mask, positions, self.cache)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows, and the padding that no row needs any more."""
        if not rows:
            self._clear()
            return
        index = torch.tensor(rows, device=self._device)
        self.mask = self.mask[index]
        spare = int((self.mask.shape[1] - self.mask.sum(1)).min())
        self.mask = self.mask[:, spare:]
        for layer in self.cache.layers:
            layer.keys = layer.keys[index, :, spare:]
            layer.values = layer.values[index, :, spare:]

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: GrowingCache
    ) -> torch.Tensor:
        with torch.inference_mode():
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits


def _pad_left(mask: torch.Tensor, length: int, value: int = 0) -> torch.Tensor:
    return torch.nn.functional.pad(mask, (length - mask.shape[1], 0), value=value)


def _pad_cache(states: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(states, (0, 0, length - states.shape[2], 0))
