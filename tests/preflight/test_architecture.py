"""A base that a later stage could not work with is refused before training, with the way out."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    Lfm2Config,
    MambaConfig,
    MixtralConfig,
    Qwen3MoeConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from support.models import save_base
from tunebuild.errors import TunebuildError
from tunebuild.merge.run import merge_adapter
from tunebuild.models.base_model import wanted_files
from tunebuild.models.skeleton import build_skeleton
from tunebuild.preflight.architecture import check_architecture
from tunebuild.serve.engines.attention import attention_of
from tunebuild.serve.engines.model import load_model
from tunebuild.spec.tuning import LoraSpec, PeftSpec, TuningSpec
from tunebuild.train.model.adapter import add_adapter, save_adapter
from tunebuild.train.plan.shapes import adapter_parameters, linear_parameters, read_tensors

SIZE = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 320, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OLD = {"vocab_size": 320, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "mixtral": MixtralConfig(**SIZE, num_local_experts=4),
    "qwen3-moe": Qwen3MoeConfig(**SIZE, num_experts=4, moe_intermediate_size=64),
    "lfm2": Lfm2Config(**SIZE, layer_types=["conv", "full_attention"]),
    "gemma2": Gemma2Config(**SIZE, head_dim=16),
    "gpt2": GPT2Config(**OLD, n_embd=64, n_layer=2, n_head=4, n_positions=64),
    "bloom": BloomConfig(**OLD, hidden_size=64, n_layer=2, n_head=4),
}


def save(name, directory):
    torch.manual_seed(0)
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(CONFIGS[name])](CONFIGS[name])
    model.save_pretrained(directory)
    return directory


def tuning(method="lora", **lora):
    return TuningSpec(method=method, lora=LoraSpec(r=4, alpha=8, **lora))


def refusal(directory, spec, *, merges=True):
    with pytest.raises(TunebuildError) as caught:
        check_architecture(directory, spec, merges=merges)
    (one,) = caught.value.diagnostics
    assert one.hint
    assert one.path
    return one


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe"])
@pytest.mark.parametrize("lora", [{"dropout": 0.1}, {"dora": True}, {"init": "pissa"}])
def test_what_peft_cannot_do_with_experts_is_refused_and_the_hint_is_taken(name, lora, tmp_path):
    base = save(name, tmp_path / "base")
    refused = refusal(base, tuning(**lora))
    assert "experts" in refused.message
    named = refused.hint.partition("[")[2].partition("]")[0].split(", ")
    assert {"q_proj", "v_proj"} <= set(named)
    check_architecture(base, tuning(targets=tuple(named), **lora), merges=True)


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe"])
def test_experts_that_are_stored_in_one_tensor_are_not_merged(name, tmp_path):
    base = save(name, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    experts = sorted(key for key in weights if ".layers.0." in key and ".experts." in key)
    assert experts
    del weights[experts[0]]
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    assert refusal(base, tuning()).code == "not-mergeable"


def test_state_that_no_cache_of_transformers_holds_is_refused(tmp_path):
    config = MambaConfig(vocab_size=320, hidden_size=64, num_hidden_layers=2, state_size=8)
    MODEL_FOR_CAUSAL_LM_MAPPING[MambaConfig](config).save_pretrained(tmp_path / "base")
    refused = refusal(tmp_path / "base", tuning())
    assert refused.code == "cache-type"


def test_virtual_tokens_before_a_state_are_refused(tmp_path):
    base = save("lfm2", tmp_path / "base")
    check_architecture(base, tuning(), merges=True)
    prefix = TuningSpec(method="peft", peft=PeftSpec(type="prefix_tuning"))
    with pytest.raises(TunebuildError, match="virtual tokens"):
        check_architecture(base, prefix, merges=False)


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "bloom"])
def test_what_works_passes(name, tmp_path):
    check_architecture(save(name, tmp_path / "base"), tuning(), merges=True)


def test_misspelt_target_is_an_error_with_a_suggestion(tmp_path):
    refused = refusal(save_base("llama", tmp_path / "base"), tuning(targets=("q_proj", "v_porj")))
    assert "v_porj" in refused.message
    assert "v_proj" in refused.hint


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_embedding_and_head_are_targets(target, tied, method, tmp_path):
    base = save_base("llama", tmp_path / "base", tie_word_embeddings=tied)
    check_architecture(base, tuning(method, targets=("q_proj", target)), merges=True)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"dora": True}, "tuning.lora.dora"),
        ({"init": "pissa"}, "tuning.lora.init"),
        ({"shard": True}, "tuning.shard"),
    ],
)
def test_what_an_embedding_cannot_have_is_refused_with_the_way_out(changes, path, tmp_path):
    base = save_base("llama", tmp_path / "base", tie_word_embeddings=True)
    lora = {name: value for name, value in changes.items() if name != "shard"}
    spec = tuning(targets=("q_proj", "lm_head"), **lora).model_copy(update={"shard": "shard" in changes})
    refused = refusal(base, spec)
    assert refused.path == path
    assert "one tensor" in refused.message
    assert path in refused.hint
    others = spec.model_copy(update={"lora": spec.lora.model_copy(update={"targets": ("q_proj",)})})
    check_architecture(base, others, merges=True)


def test_quantized_base_is_refused(tmp_path):
    base = save_base("llama", tmp_path / "base")
    file = base / "config.json"
    config = json.loads(file.read_text())
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    file.write_text(json.dumps({**config, "quantization_config": quantization}))
    assert "bitsandbytes" in refusal(base, tuning("qlora")).message


@pytest.mark.parametrize("method", ["lora", "full"])
def test_adapter_in_the_base_is_refused(method, tmp_path):
    base = save_base("llama", tmp_path / "base")
    (base / "adapter_config.json").write_text("{}")
    assert refusal(base, tuning(method)).code == "base-adapter"


def test_unknown_architecture_is_no_traceback(tmp_path):
    base = save_base("llama", tmp_path / "base")
    (base / "config.json").write_text('{"model_type": "nobody-knows"}')
    assert refusal(base, tuning()).code == "base-model"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": 3}, "lack model.layers.2"),
        ({"num_hidden_layers": 1}, "also hold model.layers.1"),
        ({"vocab_size": 100}, "makes it 100 x"),
        ({"tie_word_embeddings": False}, "lack lm_head.weight"),
        ({"attention_bias": True}, "lack model.layers.0.self_attn.k_proj.bias"),
    ],
)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_that_are_not_those_of_the_configuration_are_refused(change, said, method, tmp_path):
    base = save_base("llama", tmp_path / "base", tie_word_embeddings=True)
    check_architecture(base, tuning(method), merges=True)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **change}))
    found = refusal(base, tuning(method))
    assert (found.code, found.path) == ("base-model", "model.base")
    assert said in found.message


def test_a_tensor_of_another_model_is_refused_and_one_that_transformers_passes_over_is_not(tmp_path):
    base = save_base("llama", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file({**weights, **old}, base / "model.safetensors", {"format": "pt"})
    check_architecture(base, tuning(), merges=True)
    save_file({**weights, "score.weight": torch.ones(4)}, base / "model.safetensors", {"format": "pt"})
    assert "also hold score.weight" in refusal(base, tuning()).message


def test_second_copy_is_not_the_model(tmp_path):
    base = save_base("llama", tmp_path / "base")
    before = read_tensors(base)
    save_file({"tok_embeddings.weight": torch.zeros(4, 4)}, base / "consolidated.safetensors")
    assert "consolidated.safetensors" not in wanted_files(base)
    assert read_tensors(base) == before


def test_experts_are_not_counted_as_quantized(tmp_path):
    tensors = read_tensors(save("mixtral", tmp_path / "base"))
    assert any(".experts.0." in name for name in tensors)
    assert linear_parameters(tensors) < 2 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 4) + 1


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe"])
def test_adapters_of_experts_are_counted(name, tmp_path):
    base = save(name, tmp_path / "base")
    with torch.device("meta"):
        adapted = add_adapter(build_skeleton(base), tuning(), base=base)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert adapter_parameters(read_tensors(base), tuning().lora) == trained


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", [("q_proj", "lm_head"), ("embed_tokens",), ("embed_tokens", "lm_head")])
def test_adapters_of_embedding_and_head_are_counted(tied, targets, tmp_path):
    base = save_base("llama", tmp_path / "base", tie_word_embeddings=tied)
    spec = tuning(targets=targets)
    with torch.device("meta"):
        adapted = add_adapter(build_skeleton(base), spec, base=base)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert adapter_parameters(read_tensors(base), spec.lora) == trained


def test_soft_capping_is_honored_in_serving(tmp_path):
    base = save("gemma2", tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    for name in weights:
        if "q_proj" in name or "k_proj" in name:
            weights[name] *= 100  # far over the cap of 50
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    assert attention_of(base) == "eager"
    published = MODEL_FOR_CAUSAL_LM_MAPPING[Gemma2Config].from_pretrained(base, attn_implementation="eager")
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        served = load_model(base, None, torch.float32)(ids).logits
        torch.testing.assert_close(served, published(ids).logits)
        without = published
        without.set_attn_implementation("sdpa")
        assert (without(ids).logits - served).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "prefix", "targets"),
    [
        ("gpt2", "", "all-linear"),
        ("llama", "model.", "all-linear"),
        ("gpt2", "transformer.", "all-linear"),
        ("gpt2", "transformer.", ("c_attn", "wte")),
        ("gpt2", "", ("c_attn", "lm_head")),
        ("llama", "model.", ("q_proj", "lm_head")),
        ("gemma", "", ("q_proj", "embed_tokens")),  # whose embedding is scaled
        ("mistral", "", ("embed_tokens", "lm_head")),
    ],
)
def test_merge_is_the_trained_model(name, prefix, targets, tmp_path):
    """Weights stored transposed, under names without the prefix of the causal language model, and tied."""
    base = save(name, tmp_path / "base") if name in CONFIGS else save_base(name, tmp_path / "base")
    if prefix:
        weights = load_file(base / "model.safetensors")
        stripped = {key.removeprefix(prefix): value for key, value in weights.items()}
        assert stripped.keys() != weights.keys()
        save_file(stripped, base / "model.safetensors", {"format": "pt"})
    check_architecture(base, tuning(targets=targets), merges=True)
    trained = add_adapter(load_model(base, None, torch.float32), tuning(targets=targets), base=base)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    out = tmp_path / "out"
    (tmp_path / "trained" / "adapter").mkdir(parents=True)
    out.mkdir()
    save_adapter(trained, tmp_path / "trained" / "adapter")
    merge_adapter("original", base=base, trained=tmp_path / "trained", out=out, progress=_Silent())
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        merged = load_model(out / "model", None, torch.float32)(ids).logits
        torch.testing.assert_close(merged, trained.eval()(ids).logits, rtol=1e-4, atol=1e-4)
        apart = load_model(base, tmp_path / "trained" / "adapter", torch.float32)(ids).logits
        torch.testing.assert_close(apart, merged, rtol=1e-4, atol=1e-4)
        with trained.disable_adapter():
            assert (trained(ids).logits - merged).abs().max() > 1e-2
    published = load_file(base / "model.safetensors").keys()
    assert load_file(next((out / "model").glob("model-merged-*"))).keys() <= published


class _Silent:
    def say(self, text):
        pass

    def step(self, done, total, text=""):
        pass
