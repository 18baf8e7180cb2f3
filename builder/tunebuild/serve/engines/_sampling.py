"""Chooses the next token of a row."""

from __future__ import annotations

import torch

from tunebuild.serve.engines.base import Sampling


class Sampler:
    """One row's choice of tokens; its random numbers are its own, so other rows do not change them."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed % 2**63)

    def choose(self, logits: torch.Tensor) -> int:
        """The next token from logits ``[vocabulary]`` in float32."""
        if self._sampling.temperature == 0.0:
            return int(logits.argmax())
        ordered, ids = torch.sort(logits.cpu() / self._sampling.temperature, descending=True, stable=True)
        probabilities = ordered.softmax(0)
        # Keep a token while the ones before it have not reached top_p: the likeliest is always kept.
        before = probabilities.cumsum(0) - probabilities
        probabilities[before >= self._sampling.top_p] = 0.0
        return int(ids[torch.multinomial(probabilities, 1, generator=self._random)])
