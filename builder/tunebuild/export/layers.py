"""Which layers of a model an export rounds, looked at on a skeleton that costs no memory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tunebuild.errors import fail


def check_layers(base: Path, group_size: int, path: str) -> None:
    """Refuse a base that the tool would refuse, too, but only after the training.

    Args:
        base: the base model's directory.
        group_size: weights that share a scale.
        path: the export's place in the spec.

    Raises:
        TunebuildError: there is no linear layer but the head, one is of a kind of its own, or its width is no
            multiple.
    """
    config = AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head = skeleton.get_output_embeddings()
    layers = {
        name: module
        for name, module in skeleton.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    if not layers:
        message = "the base has no linear layer that could be exported in fewer bits"
        raise fail("export-nothing", message, "take the export out", path=path)
    for name, module in layers.items():
        if type(module) is not nn.Linear:  # llm-compressor takes it for one, and transformers then does not
            message = (
                f"{name} is of the type {type(module).__name__}, which cannot be read back in fewer bits"
            )
            raise fail("export-layer", message, "take the export out", path=path)
        if module.in_features % group_size:
            message = f"{name} has {module.in_features} inputs, which is no multiple of {group_size}"
            raise fail("group-size", message, "use a smaller one", path=f"{path}.group_size")
