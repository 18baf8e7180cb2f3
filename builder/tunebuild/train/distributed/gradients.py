"""What processes that each hold a whole model share: its first values, and the gradient of a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

_BLOCK = 1 << 26  # values that are summed at once


def average_gradients(parameters: Iterable[nn.Parameter], processes: int) -> None:
    """Replace each gradient by its mean over all processes, which must call this with the same parameters."""
    if processes == 1:
        return
    for block in _blocks(parameters):
        flat = torch.cat([gradient.view(-1) for gradient in block]).div_(processes)
        torch.distributed.all_reduce(flat)
        for gradient, mean in zip(block, flat.split([g.numel() for g in block]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def share_first_values(parameters: Iterable[nn.Parameter], processes: int) -> None:
    """Give all processes the first one's values; all of them must call this.

    Each has drawn its own by the same seed. But an adapter that is computed from the base's weights, and is
    taken out of them, may come out otherwise on another kind of processor.
    """
    if processes > 1:
        for parameter in parameters:
            torch.distributed.broadcast(parameter.data, src=0)


def _blocks(parameters: Iterable[nn.Parameter]) -> Iterator[list[Tensor]]:
    """Gradients in groups of one dtype and about so many values: many small messages would take longer."""
    block: list[Tensor] = []
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        full = sum(gradient.numel() for gradient in block) >= _BLOCK
        if block and (full or block[0].dtype != parameter.grad.dtype):
            yield block
            block = []
        block.append(parameter.grad)
    if block:
        yield block
