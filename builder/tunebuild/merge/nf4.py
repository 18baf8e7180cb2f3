"""The weights as a quantized training saw them.

bitsandbytes looks each value up among the 15 borders of NF4's 16 codes, which takes a processor 30 ms for a
million of them. Compiled loops that compare many values at once give the same bits in a twentieth of that.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tunebuild.errors import fail
from tunebuild.merge.safetensors_io import StoredTensor


@dataclass(frozen=True, slots=True)
class NF4RoundTrip:
    """Quantizes and dequantizes exactly the modules that training held in 4 bits.

    Attributes:
        weights: names of their weights.
        load_dtype: dtype the weights had when training quantized them; another one flips codes.
        blocksize, double_quant: bitsandbytes' settings then.
    """

    weights: frozenset[str]
    load_dtype: torch.dtype
    blocksize: int
    double_quant: bool

    @classmethod
    def read(cls, path: Path) -> NF4RoundTrip:
        """From ``quantization.json``.

        Raises:
            TunebuildError: another version of bitsandbytes is installed than trained.
        """
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if (installed := version("bitsandbytes")) != record["bitsandbytes"]:
            raise fail(
                "bitsandbytes-version",
                f"trained with bitsandbytes {record['bitsandbytes']}, {installed} is installed; "
                "the same weights may quantize differently",
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
        from tunebuild.merge.nf4_kernels import largest_magnitudes

        columns = tensor.shape[1]
        # Scales belong to runs of values that need not end with a row; pieces must.
        whole = self.blocksize // math.gcd(self.blocksize, columns)
        rows = max(whole, rows // whole * whole)
        largest = torch.empty(-(-tensor.shape[0] * columns // self.blocksize))
        with tensor.file.open("rb", buffering=0) as source:
            for first in range(0, tensor.shape[0], rows):
                piece = tensor.read_rows(source.fileno(), first, min(rows, tensor.shape[0] - first))
                bits = _bits(piece.to(self.load_dtype)).flatten()
                there = _blocks(first * columns, len(bits), self.blocksize)
                largest_magnitudes(bits.numpy(), self.blocksize, largest[there].numpy())
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
        from tunebuild.merge.nf4_kernels import through_4_bits

        values = stored.to(self.dtype).to(torch.float32, copy=True).flatten()
        there = _blocks(first * self.columns, len(values), self.blocksize)
        through_4_bits(
            values.numpy(), self.blocksize, self.largest[there].numpy(), self.scales[there].numpy()
        )
        return values.to(self.dtype).view(stored.shape)


def _bits(values: torch.Tensor) -> torch.Tensor:
    """Bits of bfloat16, or of what takes 32 bits to hold."""
    return values.view(torch.int16) if values.dtype == torch.bfloat16 else values.float().view(torch.int32)


def _blocks(first: int, count: int, blocksize: int) -> slice:
    """Which blocks hold so many values from the first one's number, with which one begins."""
    return slice(first // blocksize, -(-(first + count) // blocksize))


def _in_8_bits(scales: torch.Tensor) -> torch.Tensor:
    """Scales as double quantization leaves them: all of the matrix less their mean, in 8 bits."""
    from bitsandbytes import functional

    offset = scales.mean()
    codes, state = functional.quantize_blockwise(scales - offset, blocksize=256)
    return functional.dequantize_blockwise(codes, state).add_(offset)
