"""Packed rows are computed as if each were alone, and a model that cannot promise that is not packed."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AttentionInterface,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Lfm2Config,
    Lfm2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from support.models import ALL_ARCHITECTURES
from tunebuild.train.attention import PACKED, documents_are_apart, pack_tensors, try_packing

SMALL = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128, "vocab_size": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.1,
}  # fmt: skip


def model_of(name):
    torch.manual_seed(0)
    if name in ALL_ARCHITECTURES:
        return ALL_ARCHITECTURES[name](512)
    if name == "qwen":
        return Qwen3ForCausalLM(Qwen3Config(**SMALL))
    return Gemma3ForCausalLM(
        Gemma3TextConfig(**SMALL, sliding_window=8, layer_types=["sliding_attention", "full_attention"])
    )


@pytest.mark.parametrize("name", ["llama", "mistral", "phi", "qwen", "gemma"])
def test_packed_rows_give_what_they_give_alone(name):
    model = model_of(name).eval()
    assert try_packing(model) == ""
    assert model.config._attn_implementation == PACKED
    documents = [torch.randint(5, 500, (n,)) for n in (3, 90, 1, 40)]  # longer than every window, too
    with torch.no_grad():
        packed = model(**pack_tensors(documents), use_cache=False).logits[0]
        model.set_attn_implementation("sdpa")
        alone = torch.cat([model(input_ids=d[None], use_cache=False).logits[0] for d in documents])
    assert (packed - alone).abs().max() < 1e-5 * alone.abs().max()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: ALL_ARCHITECTURES["falcon"](512), "does not take an attention function"),
        (lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL)), "softcap"),
        # A convolution mixes neighbours whatever the attention does.
        (
            lambda: Lfm2ForCausalLM(Lfm2Config(**SMALL, layer_types=["conv", "full_attention"])),
            "would see each other",
        ),
    ],
)
def test_models_that_cannot_keep_rows_apart_are_left_alone(model, reason):
    model = model()
    before = model.config._attn_implementation
    assert reason in try_packing(model)
    assert model.config._attn_implementation == before


def test_a_leak_is_noticed():
    model = model_of("llama")
    model.set_attn_implementation("sdpa")
    assert documents_are_apart(model)  # by a mask that transformers makes of the positions
    model.set_attn_implementation(PACKED)
    with pytest.raises(ValueError, match="packed"):
        model(input_ids=torch.arange(4)[None])

    def leaking(module, query, key, value, mask, **options):
        heads = query.shape[1] // key.shape[1]
        k, v = (t.repeat_interleave(heads, 1) for t in (key, value))
        return torch.nn.functional.scaled_dot_product_attention(query, k, v, is_causal=True).transpose(
            1, 2
        ), None

    AttentionInterface.register("leaking", leaking)
    model.set_attn_implementation("leaking")
    assert not documents_are_apart(model)


def test_trying_leaves_no_gradient_and_the_same_mode():
    model = model_of("llama").train()
    assert try_packing(model) == ""
    assert model.training
    assert all(p.grad is None for p in model.parameters())
