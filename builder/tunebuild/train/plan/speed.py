"""How fast a training could be at best: the matrix products that it cannot do without, at full rate."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

# Products of this size fill a card.
_SIZE, _PRODUCTS = 8192, 20


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of a training.

    Attributes:
        flops_per_second: of bfloat16 matrix products, measured on this device.
        flops_per_token: of the training.
    """

    flops_per_second: float
    flops_per_token: float

    @property
    def tokens_per_second(self) -> float:
        """The limit itself."""
        return self.flops_per_second / self.flops_per_token

    def share(self, tokens_per_second: float) -> float:
        """A speed as a share of the limit."""
        return tokens_per_second / self.tokens_per_second


def flops_per_token(linear_parameters: int, *, trained: bool = False) -> float:
    """What a token costs at least: two operations a weight forward, and two for the gradient of its input.

    A weight that is trained has a gradient of its own, which takes two more. Attention, an adapter and the
    head come on top and are not counted, and neither is what is computed again.
    """
    return (6.0 if trained else 4.0) * linear_parameters


def measure_limit(linear_parameters: int, *, trained: bool = False) -> Limit | None:
    """The limit on this machine's card; ``None`` without one. Takes about a tenth of a second."""
    if not torch.cuda.is_available():
        return None
    left, right = (torch.randn(_SIZE, _SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(_PRODUCTS):
        left @ right
    torch.cuda.synchronize()
    rate = _PRODUCTS * 2 * _SIZE**3 / (time.perf_counter() - started)
    del left, right
    torch.cuda.empty_cache()
    return Limit(rate, flops_per_token(linear_parameters, trained=trained))
