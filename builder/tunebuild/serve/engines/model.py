"""Loads what an engine runs. The build measures a model through the same door before it is in an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from tunebuild.errors import fail
from tunebuild.serve.engines.attention import attention_of
from tunebuild.serve.engines.classes import model_class

# What transformers tells of loading: names of tensors, in the last with both shapes.
_WRONG = {
    "missing_keys": "lacks the tensor",
    "unexpected_keys": "has a tensor that the model does not take:",
    "mismatched_keys": "has in another shape than the model the tensor",
}
_AGAIN = (
    "build or export again, in a store after 'tunebuild cache verify --remove'; if it is so again, please "
    "report it"
)


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
    config = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    model, info = model_class(config).from_pretrained(
        directory,
        dtype=dtype,
        device_map=device_map,
        attn_implementation=attention_of(directory),
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    for kind, what in _WRONG.items():
        if info[kind]:
            first, *more = sorted(key if isinstance(key, str) else key[0] for key in info[kind])
            message = f"{directory} {what} {first}" + (f" and {len(more)} more" if more else "")
            raise fail("model-incomplete", message, _AGAIN)
    if adapter is not None:
        from tunebuild.serve.engines.adapter import add_adapter

        model = add_adapter(model, adapter)
    return model.eval()
