"""Tiny random models of the architectures that docs/models.md speaks of, as their makers publish them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BloomConfig,
    Gemma2Config,
    Gemma3Config,
    GPT2Config,
    GptOssConfig,
    Lfm2Config,
    Mistral3Config,
    MixtralConfig,
    PreTrainedModel,
    Qwen3_5Config,
    Qwen3_5TextConfig,
    Qwen3MoeConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForConditionalGeneration

from support import tokenizers as families

_SIZE = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 256, "initializer_range": 0.08, "pad_token_id": None,
}  # fmt: skip
_GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
_OLD = {"initializer_range": 0.08}
_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "head_dim": 16, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip


def _gemma3(vocabulary: int) -> Any:
    text = {
        **_SIZE, "head_dim": 16, "vocab_size": vocabulary, "sliding_window": 32,
        "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    return Gemma3Config(
        text_config=text, vision_config={**_VISION, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4, image_token_index=7, boi_token_index=8, eoi_token_index=9,
    )  # fmt: skip


def _mistral3(vocabulary: int) -> Any:
    text = {**_SIZE, "model_type": "mistral", "head_dim": 16, "vocab_size": vocabulary}
    vision = {**_VISION, "model_type": "pixtral", "image_size": 28, "patch_size": 14, "head_dim": 16}
    return Mistral3Config(text_config=text, vision_config=vision, image_token_index=7)


def _qwen3_5(vocabulary: int) -> Any:
    vision = {
        "depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
        "num_position_embeddings": 16, "patch_size": 8,
    }  # fmt: skip
    return Qwen3_5Config(
        text_config={**_SIZE, **_LINEAR, "vocab_size": vocabulary}, vision_config=vision,
        image_token_id=7, video_token_id=8, vision_start_token_id=9, vision_end_token_id=10,
    )  # fmt: skip


#: Name in the table -> configuration for a size of the vocabulary.
CONFIGS = {
    "Mixtral": lambda size: MixtralConfig(**_SIZE, vocab_size=size, num_local_experts=4),
    "Qwen3-MoE": lambda size: Qwen3MoeConfig(
        **_SIZE, vocab_size=size, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, head_dim=16
    ),
    "gpt-oss": lambda size: GptOssConfig(
        **_SIZE, vocab_size=size, num_local_experts=4, num_experts_per_tok=2, head_dim=16, sliding_window=32
    ),
    "Gemma 3 (multimodal)": _gemma3,
    "Mistral 3 (multimodal)": _mistral3,
    "Qwen3.5 (multimodal)": _qwen3_5,
    "Qwen3.5 (text)": lambda size: Qwen3_5TextConfig(**_SIZE, **_LINEAR, vocab_size=size),
    "LFM2": lambda size: Lfm2Config(**_SIZE, vocab_size=size, layer_types=["conv", "full_attention"]),
    "Gemma 2": lambda size: Gemma2Config(**_SIZE, vocab_size=size, head_dim=16, sliding_window=32),
    "GPT-2": lambda size: GPT2Config(**_OLD, **_GPT2, vocab_size=size),
    "BLOOM": lambda size: BloomConfig(**_OLD, vocab_size=size, hidden_size=64, n_layer=2, n_head=4),
}


def _model(config: Any) -> PreTrainedModel:
    if isinstance(config, Qwen3_5Config):
        return Qwen3_5ForConditionalGeneration(config)  # as published; what reads text is a part of it
    kind = type(config)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        return MODEL_FOR_CAUSAL_LM_MAPPING[kind](config)
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    return MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[kind](config)


def save_published(name: str, directory: Path) -> Path:
    """Make a base model directory: the same bytes for the same name."""
    tokenizer = families.FAMILIES["byte-level"]()
    families.save(tokenizer, directory)
    size = 64 * -(-tokenizer.get_vocab_size() // 64)
    torch.manual_seed(0)
    model = _model(CONFIGS[name](size))
    end = tokenizer.token_to_id("</s>") or tokenizer.token_to_id("<|im_end|>")
    text = model.config.get_text_config()
    text.eos_token_id = model.generation_config.eos_token_id = end
    text.bos_token_id = model.generation_config.bos_token_id = None
    model.save_pretrained(directory)
    return directory


def stored(directory: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model directory by the names of its files."""
    return {k: v for file in sorted(directory.glob("*.safetensors")) for k, v in load_file(file).items()}


def rename(directory: Path, old: str, new: str) -> None:
    """Store a model's tensors under other names, as checkpoints without a prefix are."""
    file = directory / "model.safetensors"
    save_file({k.replace(old, new, 1): v for k, v in load_file(file).items()}, file, {"format": "pt"})


def edit_config(directory: Path, **changes: object) -> None:
    """Change ``config.json``."""
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")
