"""The mean of a stored matrix's rows, without torch: a plan may need it where none is installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunebuild.errors import fail

_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_BLOCK = 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Rows:
    """A tensor in a file: where it begins, its type as safetensors spells it, rows, and bytes of each."""

    file: Path
    start: int
    dtype: str
    count: int
    size: int


def mean_row(rows: Rows, first: int) -> bytes:
    """The mean of the first so many rows, in their type, summed in float64.

    Raises:
        TunebuildError: ``new-tokens``: the type is none that is computed with.
    """
    if rows.dtype not in _TYPES:
        message = f"rows of the type {rows.dtype} cannot be added to the base"
        raise fail("new-tokens", message, "use a base in 16 bits", path="prompt.new_tokens")
    kind = np.dtype(_TYPES[rows.dtype])
    first = min(first, rows.count)
    total = np.zeros(rows.size // kind.itemsize)
    at_once = max(1, _BLOCK // max(1, rows.size))
    with rows.file.open("rb") as stream:
        stream.seek(rows.start)
        for done in range(0, first, at_once):
            block = np.frombuffer(stream.read(min(at_once, first - done) * rows.size), kind)
            values = (block.astype(np.uint32) << 16).view(np.float32) if rows.dtype == "BF16" else block
            total += values.reshape(-1, len(total)).sum(0, dtype=np.float64)
    mean = total / first
    if rows.dtype != "BF16":
        return mean.astype(kind).tobytes()
    bits = mean.astype(np.float32).view(np.uint32)
    nearest = bits + 0x7FFF + ((bits >> 16) & 1)  # to the nearest, and of two to the even one
    return (nearest >> 16).astype(np.uint16).tobytes()
