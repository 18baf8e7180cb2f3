"""What a model takes in memory besides its weights, told from its configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Bytes of a number, by the precision's name.
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def token_bytes(config: Mapping[str, Any], element: int) -> int:
    """Bytes of one token's keys and values in all layers.

    Args:
        config: the model's ``config.json``. What it leaves out is taken as in a model of 7 billion.
        element: bytes of a number.
    """
    text = config.get("text_config", config)
    heads = text.get("num_attention_heads") or 1
    width = text.get("head_dim") or (text.get("hidden_size") or 1024) // heads
    layers = text.get("num_hidden_layers") or 32
    return int(2 * layers * (text.get("num_key_value_heads") or heads) * width * element)
