"""The precision that a model is served in."""

from __future__ import annotations

from tunebuild.serve.engines._hardware import cpu_has_bfloat16


def resolve_dtype(dtype: str, device: str) -> str:
    """What ``auto`` means: bfloat16 where the hardware has it, else float32."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if device == "cuda" or cpu_has_bfloat16() else "float32"
