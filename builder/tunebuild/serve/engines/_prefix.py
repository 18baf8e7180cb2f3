"""Adapters that put virtual tokens before the prompt, as keys and values that every row begins with.

PEFT lays virtual tokens before whatever it is handed, padding included, and sets positions itself. What a
layer needs of them is keys and values, which no token behind them changes. So they are computed once, and
the base model runs without PEFT on a cache that holds them already.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

#: Keys and values of each layer, ``[1, heads, virtual tokens, width]``.
Prefix = list[tuple[torch.Tensor, torch.Tensor]]


def split_prefix(model: Any) -> tuple[Any, Prefix]:
    """What runs, and what each row begins with: nothing, unless the model has virtual tokens."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning:
        return model, []
    base = model.get_base_model()
    with torch.inference_mode():
        prompt = model.get_prompt(
            1
        )  # prefix tuning trains the cache itself, the others its tokens' embeddings
        if isinstance(prompt, torch.Tensor):
            embedded, prompt = prompt.to(base.dtype), DynamicCache()
            base(inputs_embeds=embedded, past_key_values=prompt, use_cache=True, logits_to_keep=1)
    return base, [(layer.keys, layer.values) for layer in prompt.layers]
