"""What a model keeps of the tokens that it has read."""

from __future__ import annotations

from inspect import signature
from typing import Any, Literal

# Layers whose cache is keys and values for each token; others keep a state, which cannot be padded.
_PADDED = {"full_attention", "sliding_attention", "chunked_attention", "attention", "local", "global"}


def cache_kind(model: Any) -> Literal["keys", "state", "unknown"]:
    """What the cache of a causal language model holds.

    Returns:
        ``keys`` where every layer keeps keys and values, so that rows can be padded and share a batch;
        ``state`` where some keep a state that transformers' ``DynamicCache`` knows (linear attention,
        convolutions), so that each row is read by itself; ``unknown`` where the model keeps one of its own.
    """
    from transformers.cache_utils import DYNAMIC_LAYER_TYPE_MAPPING

    if hasattr(model, "get_base_model"):  # PEFT's wrapper takes anything
        model = model.get_base_model()
    if "past_key_values" not in signature(type(model).forward).parameters:
        return "unknown"
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if kinds <= _PADDED:
        return "unknown" if getattr(model, "_is_stateful", False) else "keys"
    return "state" if kinds <= _PADDED | set(DYNAMIC_LAYER_TYPE_MAPPING) else "unknown"
