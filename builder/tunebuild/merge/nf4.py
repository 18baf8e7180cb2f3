"""The weights as a quantised training saw them.

bitsandbytes looks each value up among the 15 borders of NF4's 16 codes, which takes a processor 30 ms for a
million of them. Here a value's place between -1 and 1 is an index into a table instead, and the borders are
looked at only for the values that share a cell with one: the same bits in a tenth of the time.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunebuild.errors import fail
from tunebuild.merge.safetensors_io import StoredTensor

_CELLS = 1 << 14  # of the table on each side of zero: one value in 2,000 shares a cell with a border
_AT_ONCE = 1 << 17  # values: what is made of them on the way stays in the processor's cache
_MIDDLE = torch.tensor(float(_CELLS))
_SMALLEST = 1e-38  # bitsandbytes' for the largest value of a block, since it divides by that


@dataclass(frozen=True, slots=True)
class NF4RoundTrip:
    """Quantises and dequantises exactly the modules that training held in 4 bits.

    Attributes:
        weights: names of their weights.
        load_dtype: dtype the weights had when training quantised them; another one flips codes.
        blocksize, double_quant: bitsandbytes' settings then.
    """

    weights: frozenset[str]
    load_dtype: torch.dtype
    blocksize: int
    double_quant: bool

    @classmethod
    def read(cls, path: Path) -> NF4RoundTrip:
        """From ``quantisation.json``.

        Raises:
            TunebuildError: another version of bitsandbytes is installed than trained.
        """
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if (installed := version("bitsandbytes")) != record["bitsandbytes"]:
            raise fail(
                "bitsandbytes-version",
                f"trained with bitsandbytes {record['bitsandbytes']}, {installed} is installed; "
                "the same weights may quantise differently",
                f"pip install bitsandbytes=={record['bitsandbytes']}",
            )
        return cls(
            frozenset(f"{module}.weight" for module in record["modules"]),
            getattr(torch, record["load_dtype"]),
            record["blocksize"],
            record["double_quant"],
        )

    def begin(self, tensor: StoredTensor, rows: int) -> RoundTrip:
        """Read a matrix once for its scales; about ``rows`` rows at a time will be asked for."""
        columns = tensor.shape[1]
        # Scales belong to runs of values that need not end with a row; pieces must.
        whole = self.blocksize // math.gcd(self.blocksize, columns)
        rows = max(whole, rows // whole * whole)
        largest = torch.empty(-(-tensor.shape[0] * columns // self.blocksize))
        with tensor.file.open("rb", buffering=0) as source:
            for first in range(0, tensor.shape[0], rows):
                piece = tensor.read_rows(source.fileno(), first, min(rows, tensor.shape[0] - first))
                block = first * columns // self.blocksize
                _write_largest(piece.to(self.load_dtype).flatten(), self.blocksize, largest[block:])
        scales = _in_8_bits(largest) if self.double_quant else largest
        return RoundTrip(largest, scales, rows, columns, self.blocksize, self.load_dtype)


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A matrix on its way through 4 bits, in pieces of ``rows`` rows.

    Attributes:
        largest: magnitude in each block of values, by which training divided them.
        scales: by which it multiplied the codes' values.
        rows: of a piece; the last one may have fewer.
        columns: of the matrix.
        blocksize: values of a block.
        dtype: of what training multiplied with.
    """

    largest: torch.Tensor
    scales: torch.Tensor
    rows: int
    columns: int
    blocksize: int
    dtype: torch.dtype

    def piece(self, first: int, stored: torch.Tensor) -> torch.Tensor:
        """Rows as training multiplied with them.

        Args:
            first: number of the first one, a multiple of ``rows``.
            stored: they as they are in the file.
        """
        values = stored.to(self.dtype).flatten()
        out = torch.empty_like(values)
        block = first * self.columns // self.blocksize
        largest, scales = self.largest[block:], self.scales[block:]
        blocks = max(1, _AT_ONCE // self.blocksize)
        for start in range(0, -(-len(values) // self.blocksize), blocks):
            there = slice(start * self.blocksize, (start + blocks) * self.blocksize)
            some = slice(start, start + blocks)
            out[there] = _coded(
                values[there].to(torch.float32, copy=True), largest[some], scales[some], self.blocksize
            )
        return out.view(stored.shape)


def _coded(values: torch.Tensor, largest: torch.Tensor, scales: torch.Tensor, blocksize: int) -> torch.Tensor:
    """What the codes of some values stand for, times their scales. Overwrites the values."""
    whole = len(values) // blocksize
    blocks, rest = values[: whole * blocksize].view(whole, blocksize), values[whole * blocksize :]
    divisors = largest.clamp(min=_SMALLEST)
    # Blocks are multiplied and a last, shorter one is divided, as bitsandbytes does it: last bits differ.
    blocks.mul_(divisors[:whole].reciprocal()[:, None])
    rest.div_(divisors[whole : whole + 1])
    found = _looked_up(values)
    found[: whole * blocksize].view(whole, blocksize).mul_(scales[:whole, None])
    found[whole * blocksize :].mul_(scales[whole : whole + 1])
    return found


def _looked_up(places: torch.Tensor) -> torch.Tensor:
    """Of each value between -1 and 1 the nearest that NF4 has."""
    table, borders, codes = _table()
    cells = torch.add(_MIDDLE, places, alpha=_CELLS).to(torch.int32).clamp_(0, 2 * _CELLS)
    found = table.index_select(0, cells)
    near = torch.from_numpy(np.flatnonzero(np.isnan(found.numpy())))  # torch takes ten times as long for it
    found[near] = codes[torch.bucketize(places[near], borders)]
    return found


@cache
def _table() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The code of each cell, not a number where a border is in it or next to it; the borders; the codes."""
    from bitsandbytes import functional

    codes = functional.get_4bit_type("nf4", device="cpu")
    borders = (codes[:-1] + codes[1:]) / 2
    edges = torch.arange(2 * _CELLS + 2, dtype=torch.float64) / _CELLS - 1
    slack = 0.01 / _CELLS  # five times what 32 bits round off a cell's number
    first = torch.bucketize(edges[:-1] - slack, borders.double())
    last = torch.bucketize(edges[1:] + slack, borders.double())
    return torch.where(first == last, codes[first], math.nan), borders, codes


def _write_largest(values: torch.Tensor, blocksize: int, out: torch.Tensor) -> None:
    """Write the largest magnitude of each block; the last one may be shorter."""
    whole = len(values) // blocksize
    magnitudes = values.float().abs_()
    torch.amax(magnitudes[: whole * blocksize].view(whole, blocksize), 1, out=out[:whole])
    if whole * blocksize < len(values):
        out[whole] = magnitudes[whole * blocksize :].max().clamp_(min=_SMALLEST)


def _in_8_bits(scales: torch.Tensor) -> torch.Tensor:
    """Scales as double quantisation leaves them: all of the matrix less their mean, in 8 bits."""
    from bitsandbytes import functional

    offset = scales.mean()
    codes, state = functional.quantize_blockwise(scales - offset, blocksize=256)
    return functional.dequantize_blockwise(codes, state).add_(offset)
