"""Reads what a safetensors file says it holds, and whether it is all there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tunebuild.errors import fail

# By type, where the format has a name for it: bits of a number.
_BITS = {
    **{"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16},
    **{"U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8},
}
_MAX_HEADER = 100 << 20  # the format's own limit, in bytes


def read_header(file: Path) -> dict[str, dict[str, Any]]:
    """Tensor name -> ``dtype``, ``shape`` and ``data_offsets``. Reads no tensor.

    Raises:
        TunebuildError: not a safetensors file, or cut short.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= _MAX_HEADER else b""
    try:
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        end = max((_end(entry) for entry in header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise fail(
            "weights-damaged",
            f"{file.name} is not a safetensors file",
            "fetch it again, or write it with save_pretrained",
            path="model.base",
        ) from None
    if file.stat().st_size != 8 + length + end:
        raise fail(
            "weights-damaged",
            f"{file.name} has {file.stat().st_size:,} bytes, its header says {8 + length + end:,}",
            "it was cut short: fetch or make it again",
            path="model.base",
        )
    return header


def _end(entry: dict[str, Any]) -> int:
    """Where a tensor ends.

    Raises:
        ValueError: it takes another number of bytes than its type and shape do.
    """
    start, end = entry["data_offsets"]
    bits = _BITS.get(entry["dtype"])
    shape = entry["shape"]
    if not all(type(number) is int and number >= 0 for number in (start, end, *shape)):
        raise ValueError("no places or sizes")
    if start > end or (bits and math.prod(shape) * bits != 8 * (end - start)):
        raise ValueError("another size than its type and shape")
    return int(end)
