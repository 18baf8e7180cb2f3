"""Base weights as a 4-bit training held them, computed for the proof."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes import functional

from tunebuild.merge.proof._files import Slab
from tunebuild.merge.proof._kernels import block_maxima, nearest_codes


@dataclass(frozen=True, slots=True)
class FourBit:
    """Which modules training held in 4 bits, and how."""

    modules: frozenset[str]
    dtype: torch.dtype
    blocksize: int
    double: bool

    @classmethod
    def read(cls, file: Path) -> FourBit:
        """From the record that training left."""
        record: dict[str, Any] = json.loads(file.read_text("utf-8"))
        dtype: torch.dtype = getattr(torch, record["load_dtype"])
        return cls(frozenset(record["modules"]), dtype, record["blocksize"], record["double_quant"])

    def rows_together(self, columns: int, wanted: int) -> int:
        """About so many rows that begin and end with a block of values."""
        unit = self.blocksize // math.gcd(self.blocksize, columns)
        return max(unit, wanted // unit * unit)

    def held(self, slab: Slab, descriptor: int, rows: int) -> Iterator[torch.Tensor]:
        """The matrix as products were taken with it, in float32 and so many rows at a time."""
        maxima = torch.cat(list(self._maxima(slab, descriptor, rows)))
        scales = _stored_in_8_bits(maxima) if self.double else maxima
        codes = functional.get_4bit_type("nf4", device="cpu")
        borders = (codes[1:] + codes[:-1]) / 2
        done = 0
        for values in self._loaded(slab, descriptor, rows):
            flat = values.flatten()
            blocks = -(-len(flat) // self.blocksize)
            here = slice(done, done + blocks)
            nearest_codes(
                flat.numpy(),
                self.blocksize,
                maxima[here].numpy(),
                scales[here].numpy(),
                borders.numpy(),
                codes.numpy(),
            )
            done += blocks
            yield flat.view(values.shape).to(self.dtype).float()

    def _maxima(self, slab: Slab, descriptor: int, rows: int) -> Iterator[torch.Tensor]:
        for values in self._loaded(slab, descriptor, rows):
            found = torch.empty(-(-values.numel() // self.blocksize))
            block_maxima(values.flatten().numpy(), self.blocksize, found.numpy())
            if values.numel() % self.blocksize:
                found[-1].clamp_(min=1e-38)  # what bitsandbytes divides a shorter block by, and keeps
            yield found

    def _loaded(self, slab: Slab, descriptor: int, rows: int) -> Iterator[torch.Tensor]:
        for first in range(0, slab.rows, rows):
            values = slab.values(descriptor, first, min(rows, slab.rows - first))
            yield values.to(self.dtype).float()


def _stored_in_8_bits(scales: torch.Tensor) -> torch.Tensor:
    """Scales after double quantization, by bitsandbytes itself."""
    mean = scales.mean()
    codes, state = functional.quantize_blockwise(scales - mean, blocksize=256)
    return functional.dequantize_blockwise(codes, state) + mean
