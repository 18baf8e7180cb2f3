"""Packed rows are computed as if each were alone, and a model that cannot promise that is not packed."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AttentionInterface,
    Gemma2Config,
    Gemma2ForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
)

from support.models import ALL_ARCHITECTURES
from tunebuild.train.model import attention
from tunebuild.train.model.attention import PACKED, pack_tensors, try_packing

SMALL = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128, "vocab_size": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.1,
}  # fmt: skip
CHUNKS = {
    "attention_chunk_size": 8, "intermediate_size_mlp": 128, "num_local_experts": 2,
    "interleave_moe_layer_step": 2,
    "layer_types": ["chunked_attention", "chunked_attention"],
}  # fmt: skip


def model_of(name):
    torch.manual_seed(0)
    return ALL_ARCHITECTURES[name](512)


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
        (lambda: ALL_ARCHITECTURES["llama"](512, attention_dropout=0.1), "attention dropout"),
        # Its mask lets a token see its own chunk only, which no word to the attention function says.
        (lambda: Llama4ForCausalLM(Llama4TextConfig(**SMALL, **CHUNKS)), "too little"),
        # A convolution mixes neighbors whatever the attention does.
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


@pytest.mark.quick
def test_a_leak_is_noticed(monkeypatch):
    def leaking(module, query, key, value, mask, **options):
        heads = query.shape[1] // key.shape[1]
        k, v = (t.repeat_interleave(heads, 1) for t in (key, value))
        attended = torch.nn.functional.scaled_dot_product_attention(query, k, v, is_causal=True)
        return attended.transpose(1, 2), None

    AttentionInterface.register("leaking", leaking)
    model = model_of("llama")
    monkeypatch.setattr(attention, "PACKED", "leaking")
    assert "see each other" in try_packing(model)
    assert model.config._attn_implementation == "sdpa"


def test_a_leak_too_faint_to_show_in_values_is_noticed(monkeypatch):
    def leaking(module, query, key, value, mask, **options):
        attended, weights = attention.packed_attention(module, query, key, value, mask, **options)
        return attended + 1e-6 * value.mean(), weights

    AttentionInterface.register("leaking", leaking)
    monkeypatch.setattr(attention, "PACKED", "leaking")
    assert "see each other" in try_packing(model_of("llama"))


def test_rows_that_are_not_packed_are_refused():
    model = model_of("llama")
    model.set_attn_implementation(PACKED)
    with pytest.raises(ValueError, match="packed"):
        model(input_ids=torch.arange(4)[None])


def test_trying_leaves_no_gradient_and_the_same_mode():
    model = model_of("llama").train()
    assert try_packing(model) == ""
    assert model.training
    assert all(p.grad is None for p in model.parameters())
