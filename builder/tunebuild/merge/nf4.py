"""The weights as a quantised training saw them."""

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
        """Quantise a matrix, about ``rows`` rows at a time."""
        from bitsandbytes import functional

        columns = tensor.shape[1]
        # Scales belong to runs of values that need not end with a row; pieces must.
        whole = self.blocksize // math.gcd(self.blocksize, columns)
        rows = max(whole, rows // whole * whole)
        values = tensor.shape[0] * columns
        # One piece of memory each: kept apart among blocks that come and go, they would hold those, too.
        packed = torch.empty(-(-values // 2), dtype=torch.uint8)
        absmax = torch.empty(-(-values // self.blocksize))
        with tensor.file.open("rb", buffering=0) as source:
            for first in range(0, tensor.shape[0], rows):
                piece = tensor.read_rows(source.fileno(), first, min(rows, tensor.shape[0] - first))
                codes, state = functional.quantize_4bit(
                    piece.to(self.load_dtype),
                    blocksize=self.blocksize,
                    compress_statistics=False,
                    quant_type="nf4",
                )
                start = first * columns
                packed[start // 2 : start // 2 + codes.numel()] = codes.flatten()
                there = start // self.blocksize
                absmax[there : there + state.absmax.numel()] = state.absmax
        if self.double_quant:
            # As quantize_4bit does it: all scales of the matrix less their mean, in 8 bits.
            offset = absmax.mean()
            absmax = functional.dequantize_blockwise(
                *functional.quantize_blockwise(absmax - offset, blocksize=256)
            )
            absmax += offset
        return RoundTrip(packed, absmax, rows, columns, self.blocksize, self.load_dtype)


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A quantised matrix in pieces of ``rows`` rows; about half a byte a value."""

    packed: torch.Tensor
    absmax: torch.Tensor
    rows: int
    columns: int
    blocksize: int
    dtype: torch.dtype

    def piece(self, number: int, rows: int) -> torch.Tensor:
        """The rows of a piece as training multiplied with them."""
        from bitsandbytes import functional

        values = rows * self.columns
        start = number * self.rows * self.columns
        codes = self.packed[start // 2 : start // 2 - (-values // 2)]
        block = start // self.blocksize
        scales = self.absmax[block : block - (-values // self.blocksize)]
        state = functional.QuantState(
            # In one row: the kernel for processors goes wrong where blocks do not end with a row.
            absmax=scales,
            shape=torch.Size((1, values)),
            dtype=self.dtype,
            blocksize=self.blocksize,
            code=functional.get_4bit_type("nf4", device="cpu"),
            quant_type="nf4",
        )
        return functional.dequantize_4bit(codes[:, None], state).view(rows, self.columns)
