"""Small models of the architectures that users bring, with tokenizers, as base model directories."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from support import tokenizers as families

_SIZE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.08}


def llama(vocabulary: int, **changes: object) -> PreTrainedModel:
    """Grouped-query attention, tied embeddings."""
    options = {
        **_SIZE, "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 256,
        "tie_word_embeddings": True, "vocab_size": vocabulary, **changes,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**options))


def mistral(vocabulary: int, **changes: object) -> PreTrainedModel:
    """Sliding window, a head of its own."""
    options = {
        **_SIZE, "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 256,
        "sliding_window": 64, "vocab_size": vocabulary, **changes,
    }  # fmt: skip
    return MistralForCausalLM(MistralConfig(**options))


def falcon(vocabulary: int, **changes: object) -> PreTrainedModel:
    """Fused query, key and value; one key-value head; parallel attention."""
    options = {
        **_SIZE, "multi_query": True, "parallel_attn": True, "new_decoder_architecture": False,
        "bias": False, "alibi": False, "vocab_size": vocabulary, **changes,
    }  # fmt: skip
    return FalconForCausalLM(FalconConfig(**options))


def phi(vocabulary: int, **changes: object) -> PreTrainedModel:
    """Fused query, key and value; fused gate and up."""
    options = {
        **_SIZE, "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 256,
        "pad_token_id": 0, "vocab_size": vocabulary, **changes,
    }  # fmt: skip
    return Phi3ForCausalLM(Phi3Config(**options))


def qwen(vocabulary: int, **changes: object) -> PreTrainedModel:
    """Heads that are wider than the model, and norms of queries and keys."""
    options = {
        **_SIZE, "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 256,
        "head_dim": 32, "tie_word_embeddings": True, "vocab_size": vocabulary, **changes,
    }  # fmt: skip
    return Qwen3ForCausalLM(Qwen3Config(**options))


def gemma(vocabulary: int, **changes: object) -> PreTrainedModel:
    """Norms that add one, embeddings that are scaled, layers with a window and layers without."""
    options = {
        **_SIZE, "num_key_value_heads": 1, "intermediate_size": 128, "max_position_embeddings": 256,
        "head_dim": 16, "sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"],
        "pad_token_id": 0, "vocab_size": vocabulary, **changes,
    }  # fmt: skip
    return Gemma3ForCausalLM(Gemma3TextConfig(**options))


ARCHITECTURES = {"llama": llama, "mistral": mistral, "falcon": falcon}
#: Those, and what is looked at only where it differs.
ALL_ARCHITECTURES = {**ARCHITECTURES, "phi": phi, "qwen": qwen, "gemma": gemma}
_TOKENIZERS = {
    "llama": "byte-level", "mistral": "sentence-piece-first", "falcon": "byte-level", "phi": "byte-level",
    "qwen": "byte-level", "gemma": "sentence-piece-first",
}  # fmt: skip


def save_base(
    architecture: str,
    directory: Path,
    *,
    dtype: torch.dtype = torch.float32,
    shard: str = "1GB",
    **changes: object,
) -> Path:
    """Make a base model directory: the same bytes for the same arguments."""
    tokenizer = families.FAMILIES[_TOKENIZERS[architecture]]()
    families.save(tokenizer, directory)
    vocabulary = 64 * -(-tokenizer.get_vocab_size() // 64)
    torch.manual_seed(0)
    model = ALL_ARCHITECTURES[architecture](vocabulary, **changes).to(dtype)
    end = tokenizer.token_to_id("</s>") or tokenizer.token_to_id("<|im_end|>")
    model.config.eos_token_id = model.generation_config.eos_token_id = end
    model.config.bos_token_id = model.generation_config.bos_token_id = None
    model.save_pretrained(directory, max_shard_size=shard)
    return directory
