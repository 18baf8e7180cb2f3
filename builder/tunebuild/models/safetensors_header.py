"""Reads what a safetensors file says it holds, and whether it is all there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunebuild.errors import fail

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
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise fail("weights-damaged", f"{file.name} is not a safetensors file", path="model.base") from None
    if file.stat().st_size != 8 + length + end:
        raise fail(
            "weights-damaged",
            f"{file.name} has {file.stat().st_size:,} bytes, its header says {8 + length + end:,}",
            "it was cut short: fetch or make it again",
            path="model.base",
        )
    return header
