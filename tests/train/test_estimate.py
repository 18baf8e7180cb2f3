"""The memory estimate: exact where it counts, near where it was measured."""

from __future__ import annotations

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from support.models import ARCHITECTURES, save_base
from tunebuild.lock.base_model import find_base_model
from tunebuild.spec.model import ModelSpec
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import digest_file
from tunebuild.train.base import load_base
from tunebuild.train.estimate import adapter_parameters, estimate_memory, read_tensors
from tunebuild.train.settings import TrainSettings


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "query_key_value")])
def test_adapters_are_counted_exactly(tmp_path, architecture, targets):
    base = save_base(architecture, tmp_path / "base")
    lora = LoraSpec(r=6, targets=targets)
    model = AutoModelForCausalLM.from_pretrained(base)
    named = targets if isinstance(targets, str) else list(targets)
    real = get_peft_model(model, LoraConfig(r=6, target_modules=named, task_type="CAUSAL_LM"))
    trainable = sum(p.numel() for p in real.parameters() if p.requires_grad)
    found = find_base_model(ModelSpec(base="./base"), tmp_path, tmp_path, digest_file)
    assert adapter_parameters(read_tensors(found), lora) == trainable


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_weights_are_counted_as_training_holds_them(tmp_path, architecture, method):
    # Wide enough that whole blocks of scales dominate over what is left of the last one.
    save_base(architecture, tmp_path / "base", hidden_size=256)
    settings = TrainSettings(TuningSpec(method=method), "cpu", "float32")
    held = 0
    for parameter in load_base(tmp_path / "base", settings).parameters():  # shared ones once
        held += parameter.numel() * parameter.element_size()
        if state := getattr(parameter, "quant_state", None):
            held += state.absmax.numel() * state.absmax.element_size()
            held += state.state2.absmax.numel() * 4
    found = find_base_model(ModelSpec(base="./base"), tmp_path, tmp_path, digest_file)
    estimate = estimate_memory(found.config, read_tensors(found), settings, tokens_per_row=10)
    assert estimate.weights == pytest.approx(held, rel=0.02)


# Peaks of two training steps on an H100 (torch 2.11, bfloat16), without the CUDA context, in GB:
# benchmarks/memory_estimate.py. Hidden size, layers, inner size, heads, key-value heads, vocabulary.
SHAPES = {
    "0.5B": (1024, 24, 2816, 16, 4, 32_000),
    "1B": (2048, 16, 8192, 32, 8, 128_256),
    "7B": (4096, 32, 14_336, 32, 8, 32_000),
}
MEASURED = [
    ("0.5B", "lora", 8, 512, 1.34),
    ("0.5B", "qlora", 8, 512, 0.84),
    ("0.5B", "qlora", 1, 4096, 0.85),
    ("1B", "lora", 2, 2048, 4.23),
    ("1B", "qlora", 4, 1024, 2.59),
    ("1B", "qlora", 1, 256, 1.87),
    ("7B", "qlora", 1, 2048, 5.81),
    ("7B", "qlora", 8, 512, 6.80),
    ("7B", "lora", 4, 1024, 17.54),
]


def tensors(hidden, layers, inner, heads, key_values, vocabulary):
    narrow = hidden // heads * key_values
    found = {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden)}
    for layer in range(layers):
        of_attention = {"q": hidden, "k": narrow, "v": narrow, "o": hidden}
        for name, out in of_attention.items():
            found[f"model.layers.{layer}.self_attn.{name}_proj.weight"] = (out, hidden)
        for name, shape in {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}.items():
            found[f"model.layers.{layer}.mlp.{name}_proj.weight"] = shape
    return found


@pytest.mark.parametrize(("shape", "method", "rows", "tokens", "measured"), MEASURED)
def test_the_estimate_is_near_what_was_measured_on_a_card(shape, method, rows, tokens, measured):
    hidden, _, _, heads, _, vocabulary = SHAPES[shape]
    config = {"hidden_size": hidden, "num_attention_heads": heads, "vocab_size": vocabulary}
    settings = TrainSettings(TuningSpec(method=method, batch_size=rows), "cuda", "bfloat16")
    found = estimate_memory(config, tensors(*SHAPES[shape]), settings, tokens_per_row=tokens)
    assert (found.total - found.overhead) / 1e9 == pytest.approx(measured, rel=0.15)
