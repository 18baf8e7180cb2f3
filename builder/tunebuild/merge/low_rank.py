"""A low-rank update of one weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class LowRankUpdate:
    """``scale * b @ a``, to be added to a weight; with DoRA, whose rows are then scaled to ``magnitude``.

    Attributes:
        a: ``[rank, inputs]``.
        b: ``[outputs, rank]``.
        scale: alpha / rank, or alpha / sqrt(rank) for rsLoRA.
        magnitude: ``[outputs]``, the length of each row; ``None`` without DoRA.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None = None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it belongs to a weight of this shape."""
        outputs, inputs = self.b.shape[0], self.a.shape[1]
        rows = None if self.magnitude is None else tuple(self.magnitude.shape)
        return shape == (outputs, inputs) and rows in (None, (outputs,))

    def add_to(self, weight: torch.Tensor, first: int, out: torch.Tensor) -> torch.Tensor:
        """Some updated rows in float32; in the order of operations of PEFT, so bit-equal to it.

        Args:
            weight: ``[rows, inputs]``, rows of the weight in any floating dtype.
            first: the number of their first row.
            out: ``[rows, inputs]`` of float32, which gets the result.
        """
        rows = slice(first, first + len(weight))
        torch.mm(self.b[rows].float(), self.a.float(), out=out)
        out.mul_(self.scale).add_(weight)
        if self.magnitude is not None:
            lengths = torch.linalg.norm(out, dim=1)
            out.mul_((self.magnitude[rows].float() / lengths)[:, None])
        return out

    @property
    def size(self) -> float:
        """Frobenius norm of what is added, from the factors alone: ``|BA|^2 = trace((B^T B)(A A^T))``."""
        a, b = self.a.double(), self.b.double()
        return abs(self.scale) * math.sqrt(max(0.0, float(((b.T @ b) * (a @ a.T)).sum())))
