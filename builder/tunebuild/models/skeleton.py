"""The modules of a base without its weights, and where each of its parameters is stored."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def build_skeleton(directory: Path) -> Any:
    """The causal language model that transformers makes of a directory, on the meta device.

    Raises:
        ValueError, KeyError, OSError, ImportError: transformers cannot make one, in its own words.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    skeleton.tie_weights()
    return skeleton


def stored_names(skeleton: Any, stored: Iterable[str]) -> dict[str, str]:
    """The stored tensor of each parameter that loading only renames, by the parameter's name.

    transformers adds or drops a prefix and follows names that changed between versions. A parameter that it
    makes of several tensors, or of one in another layout, is left out.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(skeleton)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    parameters = skeleton.state_dict()
    found = {}
    for name in stored:
        renamed, converter = rename_source_key(
            name, renamings, converters, skeleton.base_model_prefix, parameters
        )
        if converter is None and renamed in parameters:
            found[renamed] = name
    return found


def transposed_layers(skeleton: Any) -> frozenset[str]:
    """Names of the layers whose weight is stored as ``[inputs, outputs]``, as GPT-2's are."""
    from transformers.pytorch_utils import Conv1D

    return frozenset(name for name, module in skeleton.named_modules() if isinstance(module, Conv1D))
