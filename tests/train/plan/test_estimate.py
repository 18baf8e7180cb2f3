"""The memory estimate: exact where it counts, near where it was measured."""

from __future__ import annotations

import json

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from support.bases import CONFIGS, save_published
from support.models import ARCHITECTURES, save_base
from tunebuild.errors import TunebuildError
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.train.model.adapter import add_adapter
from tunebuild.train.model.base import load_base
from tunebuild.train.plan.estimate import estimate_memory
from tunebuild.train.plan.settings import Execution, TrainSettings
from tunebuild.train.plan.shapes import adapter_parameters, read_tensors


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "query_key_value")])
def test_adapters_are_counted_exactly(tmp_path, architecture, targets):
    base = save_base(architecture, tmp_path / "base")
    lora = LoraSpec(r=6, targets=targets)
    model = AutoModelForCausalLM.from_pretrained(base)
    named = targets if isinstance(targets, str) else list(targets)
    real = get_peft_model(model, LoraConfig(r=6, target_modules=named, task_type="CAUSAL_LM"))
    trainable = sum(p.numel() for p in real.parameters() if p.requires_grad)
    assert adapter_parameters(read_tensors(base), lora) == trainable


def held_bytes(model):
    """Of the parameters as they are loaded, with the scales of those in 4 bits; shared ones once."""
    held = 0
    for parameter in model.parameters():
        held += parameter.numel() * parameter.element_size()
        if state := getattr(parameter, "quant_state", None):
            held += state.absmax.numel() * state.absmax.element_size()
            held += state.state2.absmax.numel() * 4
    return held


def estimate_of(base, settings):
    config = json.loads((base / "config.json").read_text())
    return estimate_memory(config, read_tensors(base), settings, Execution(True, False, False, 0, 1, 10))


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_weights_are_counted_as_training_holds_them(tmp_path, architecture, method):
    # Wide enough that whole blocks of scales dominate over what is left of the last one.
    base = save_base(architecture, tmp_path / "base", hidden_size=256)
    settings = TrainSettings(TuningSpec(method=method), "cpu", "float32")
    held = held_bytes(load_base(base, settings))
    assert estimate_of(base, settings).weights == pytest.approx(held, rel=0.02)


# Of these, bitsandbytes cannot hold the narrow vision towers in 4 bits on a CPU.
_LORA_ONLY = ("Gemma 3 (multimodal)", "Mistral 3 (multimodal)")
# The first's vision tower is stored and not loaded; the second's router is no layer that PEFT knows.
_AT_MOST = ("Qwen3.5 (multimodal)", "gpt-oss")


@pytest.mark.parametrize("name", CONFIGS)
def test_published_layouts_are_counted_as_training_holds_them(tmp_path, name):
    base = save_published(name, tmp_path / "base")
    for method in ("lora",) if name in _LORA_ONLY else ("lora", "qlora"):
        tuning = TuningSpec(method=method, lora=LoraSpec(r=6))
        settings = TrainSettings(tuning, "cpu", "float32")
        model = load_base(base, settings)
        found, held = estimate_of(base, settings).weights, held_bytes(model)
        adapted = add_adapter(model, tuning, base=base)
        trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        counted = adapter_parameters(read_tensors(base), tuning.lora)
        if name in _AT_MOST:
            assert held * 0.995 <= found <= held * 1.5
            assert trained <= counted <= trained * 1.2
        else:
            assert found == pytest.approx(held, rel=0.005)
            assert counted == trained


# Hidden size, layers, inner size, heads, key-value heads, vocabulary.
SHAPES = {
    "0.5B": (1024, 24, 2816, 16, 4, 32_000),
    "1B": (2048, 16, 8192, 32, 8, 128_256),
    "7B": (4096, 32, 14_336, 32, 8, 32_000),
    "8x1B": (2048, 16, 5632, 32, 8, 32_000),
}
EXPERTS = {"8x1B": 8}  # of which a token goes through two
# What torch's allocator handed out at most on an H100 (torch 2.11, bfloat16): the last two columns are the
# tokens of a micro-batch and that peak in GB. From benchmarks/training/, and from a plain loop over the same
# parts.
COMPILED, EAGER, UNFUSED = (True, True), (True, False), (False, False)  # fused, compiled
MEASURED = [
    ("0.5B", "lora", EAGER, 0, 6392, 7.18),
    ("0.5B", "qlora", EAGER, 0, 2133, 2.57),
    ("1B", "lora", COMPILED, 0, 13_704, 20.51),
    ("1B", "qlora", EAGER, 0, 6928, 13.89),
    ("7B", "lora", COMPILED, 0, 13_417, 76.04),
    ("7B", "lora", COMPILED, 0, 4096, 33.73),
    ("7B", "lora", COMPILED, 16, 12_288, 45.53),
    ("7B", "lora", COMPILED, 32, 16_384, 22.39),
    ("7B", "lora", EAGER, 0, 8192, 64.14),
    ("7B", "lora", UNFUSED, 0, 8192, 73.19),
    ("7B", "qlora", COMPILED, 0, 13_417, 65.68),
    ("7B", "qlora", COMPILED, 32, 8949, 8.74),
    ("0.5B", "full", UNFUSED, 0, 13_704, 23.23),
    ("1B", "full", UNFUSED, 0, 13_704, 50.26),
    ("8x1B", "lora", EAGER, 0, 2777, 25.65),
    ("8x1B", "lora", COMPILED, 0, 6392, 33.57),
    ("8x1B", "qlora", EAGER, 0, 3222, 27.20),
]


def tensors(hidden, layers, inner, heads, key_values, vocabulary, experts=0):
    narrow = hidden // heads * key_values
    found = {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden)}
    for layer in range(layers):
        of_attention = {"q": hidden, "k": narrow, "v": narrow, "o": hidden}
        for name, out in of_attention.items():
            found[f"model.layers.{layer}.self_attn.{name}_proj.weight"] = (out, hidden)
        for name, shape in {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}.items():
            for part in [f"experts.{n}." for n in range(experts)] or [""]:
                found[f"model.layers.{layer}.mlp.{part}{name}_proj.weight"] = shape
        if experts:
            found[f"model.layers.{layer}.mlp.gate.weight"] = (experts, hidden)
    return found


def estimated(shape, method, how, checkpointed, tokens, *, micro_batches=1, processes=1, **lora):
    hidden, _, inner, heads, key_values, vocabulary = SHAPES[shape]
    config = {
        "hidden_size": hidden, "num_attention_heads": heads, "num_key_value_heads": key_values,
        "vocab_size": vocabulary, "intermediate_size": inner, "num_experts_per_tok": 2,
    }  # fmt: skip
    tuning = TuningSpec(
        method=method,
        processes=processes,
        shard=processes > 1,
        **({"lora": LoraSpec(**lora)} if lora else {}),
    )
    execution = Execution(True, *how, checkpointed, micro_batches, tokens)
    settings = TrainSettings(tuning, "cuda", "bfloat16")
    stored = tensors(*SHAPES[shape], experts=EXPERTS.get(shape, 0))
    return estimate_memory(config, stored, settings, execution)


@pytest.mark.parametrize(("shape", "method", "how", "checkpointed", "tokens", "measured"), MEASURED)
def test_memory_estimate_matches_measured_peaks(shape, method, how, checkpointed, tokens, measured):
    found = estimated(shape, method, how, checkpointed, tokens)
    assert (found.total - found.overhead) / 1e9 == pytest.approx(measured, rel=0.06)


@pytest.mark.parametrize(
    ("shape", "method", "how", "micro_batches", "tokens", "measured"),
    [("1B", "full", UNFUSED, 1, 7044, 23.76), ("7B", "lora", EAGER, 2, 6852, 49.33)],
)
def test_memory_estimate_fsdp_two_ranks(shape, method, how, micro_batches, tokens, measured):
    found = estimated(shape, method, how, 0, tokens, micro_batches=micro_batches, processes=2)
    assert (found.total - found.overhead) / 1e9 == pytest.approx(measured, rel=0.06)


def test_memory_estimate_dropout_keeps_a_copy_of_every_input():
    found = estimated("1B", "lora", UNFUSED, 0, 2777, dropout=0.05)
    assert (found.total - found.overhead) / 1e9 == pytest.approx(10.78, rel=0.06)


def test_sizes_are_found_under_older_names_or_asked_for():
    found = {"n_embd": 1024, "n_head": 16, "vocab_size": 32_000}
    shapes = tensors(*SHAPES["0.5B"])
    settings = TrainSettings(TuningSpec(method="lora"), "cpu", "float32")
    execution = Execution(True, False, False, 0, 1, 100)
    assert estimate_memory(found, shapes, settings, execution).total > 0
    with pytest.raises(TunebuildError, match="num_attention_heads"):
        estimate_memory({"n_embd": 1024, "vocab_size": 32_000}, shapes, settings, execution)
