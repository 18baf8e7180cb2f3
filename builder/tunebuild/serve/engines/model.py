"""Loads what an engine runs. The build measures a model through the same door before it is in an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tunebuild.errors import fail


def load_model(
    directory: Path,
    adapter: Path | None,
    dtype: torch.dtype,
    device_map: dict[str, int] | None = None,
) -> Any:
    """A causal language model, ready to answer.

    Args:
        directory: configuration and safetensors.
        adapter: a directory in PEFT's format, whose adapter is put on top.
        dtype: of the weights; an adapter keeps the one it was trained in.
        device_map: of transformers; on the CPU if left out.

    Raises:
        TunebuildError: ``model-incomplete``: a tensor is missing, left over or of another shape, which
            transformers would fill with random numbers and PEFT would pass over.
    """
    model, info = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=dtype,
        device_map=device_map,
        attn_implementation="sdpa",
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if wrong := sorted(map(str, info[kind])):
            message = f"the model has {kind.replace('_keys', '')} tensors: {', '.join(wrong[:3])}"
            raise fail("model-incomplete", message, "this is a fault of tunebuild: please report it")
    if adapter is not None:
        from tunebuild.serve.engines.adapter import add_adapter

        model = add_adapter(model, adapter)
    return model.eval()
