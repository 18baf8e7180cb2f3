"""The weights as a quantised training saw them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tunebuild.errors import fail


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

    def apply(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The weight as training multiplied with it; unchanged if it was not quantised."""
        if name not in self.weights:
            return weight
        from bitsandbytes import functional

        packed, state = functional.quantize_4bit(
            weight.to(self.load_dtype).contiguous(),
            blocksize=self.blocksize,
            compress_statistics=self.double_quant,
            quant_type="nf4",
        )
        return functional.dequantize_4bit(packed, state)
