"""The merged model is the trained model: held against PEFT, bitsandbytes and plain transformers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from support.models import ARCHITECTURES, save_base
from support.rows import write_rows
from tunebuild.errors import TunebuildError
from tunebuild.merge.run import merge_adapter
from tunebuild.merge.safetensors_io import list_tensors, plan_shards
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent
from tunebuild.train.adapter import save_adapter
from tunebuild.train.base import load_base
from tunebuild.train.run import train_adapter
from tunebuild.train.settings import TrainSettings


def make_adapter(base, directory, dtype, **config):
    """A LoRA adapter with a random update, made by PEFT on the 16-bit base."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    save_adapter(model, directory / "adapter")
    return directory


def merged(base, trained, tmp_path, strategy="original", **options):
    out = tmp_path / "out"
    out.mkdir()
    merge_adapter(strategy, base=base, trained=trained, out=out, progress=Silent(), **options)
    return out / "model"


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits.float()


@pytest.mark.parametrize(
    "config",
    [
        {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
        {"r": 8, "lora_alpha": 8, "target_modules": "all-linear", "use_rslora": True},
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": "all-linear",
            "rank_pattern": {r"\d\.mlp\..*": 2},
        },
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": "all-linear",
            "alpha_pattern": {r"1\.mlp\..*": 32},
        },
    ],
    ids=["lora", "rslora", "rank-pattern", "alpha-pattern"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_bit_equal_to_peft(tmp_path, architecture, dtype, config):
    base = save_base(architecture, tmp_path / "base", dtype=dtype, shard="50KB")
    trained = make_adapter(base, tmp_path / "trained", dtype, **config)
    ours = merged(base, trained, tmp_path, shard_bytes=70_000)
    reference = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=dtype), trained / "adapter"
    )
    reference.merge_and_unload().save_pretrained(tmp_path / "peft")
    expected = load_file(tmp_path / "peft" / "model.safetensors")
    found = {t.name: t.read() for t in list_tensors(ours)}
    assert len(list(ours.glob("*.safetensors"))) > 1
    assert found.keys() == expected.keys()
    assert [n for n in expected if not torch.equal(found[n], expected[n])] == []


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_dequantized_is_the_model_that_was_trained(tmp_path, architecture):
    base = save_base(architecture, tmp_path / "base", dtype=torch.bfloat16)
    write_rows(base, tmp_path / "rows")
    tuning = TuningSpec(epochs=8, batch_size=5, learning_rate=1e-2, lora=LoraSpec(r=4), max_length=128)
    settings = TrainSettings(tuning, "cpu", "float32")
    for name in ("work", "trained"):
        (tmp_path / name).mkdir()
    train_adapter(
        settings,
        data=tmp_path / "rows",
        base=base,
        work=tmp_path / "work",
        out=tmp_path / "trained",
        progress=Silent(),
    )
    ours = merged(base, tmp_path / "trained", tmp_path, "dequantized")
    adapter = tmp_path / "trained" / "adapter"
    ids = torch.arange(10, 74)[None, :]
    truth = logits(PeftModel.from_pretrained(load_base(base, settings), adapter), ids)
    plain = AutoModelForCausalLM.from_pretrained(ours, dtype=torch.float32)
    assert not any("quant" in key for key in plain.config.to_dict())
    requantised = PeftModel.from_pretrained(load_base(base, settings), adapter).merge_and_unload()
    original = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter
    ).merge_and_unload()

    def distance(model):
        return float((logits(model, ids) - truth).norm() / truth.norm())

    assert distance(plain) < 0.02
    assert distance(requantised) > 4 * distance(plain)
    assert distance(original) > 4 * distance(plain)


def test_dequantized_equals_bitsandbytes_own_dequantisation(tmp_path):
    base = save_base("llama", tmp_path / "base")
    settings = TrainSettings(TuningSpec(), "cpu", "float32")
    trained = make_adapter(
        base, tmp_path / "trained", torch.float32, r=4, lora_alpha=8, target_modules="all-linear"
    )
    from tunebuild.train.base import describe_quantisation

    model = load_base(base, settings)
    record = describe_quantisation(model, settings)
    (trained / "quantisation.json").write_text(json.dumps(record.to_json()))
    ours = {t.name: t.read() for t in list_tensors(merged(base, trained, tmp_path, "dequantized"))}
    plain = model.dequantize()
    expected = PeftModel.from_pretrained(plain, trained / "adapter").merge_and_unload().state_dict()
    assert [n for n, t in ours.items() if not torch.equal(t, expected[n])] == []


def test_another_bitsandbytes_is_refused(tmp_path):
    base = save_base("llama", tmp_path / "base")
    settings = TrainSettings(TuningSpec(), "cpu", "float32")
    trained = make_adapter(base, tmp_path / "trained", torch.float32, r=4, target_modules="all-linear")
    from tunebuild.train.base import describe_quantisation

    record = replace(describe_quantisation(load_base(base, settings), settings), bitsandbytes="0.1")
    (trained / "quantisation.json").write_text(json.dumps(record.to_json()))
    with pytest.raises(TunebuildError, match=r"trained with bitsandbytes 0\.1"):
        merged(base, trained, tmp_path, "dequantized")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "trained biases"),
    ],
)
def test_what_cannot_be_merged_is_refused(tmp_path, change, message):
    base = save_base("llama", tmp_path / "base")
    trained = make_adapter(base, tmp_path / "trained", torch.float32, r=4, target_modules="all-linear")
    config = trained / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(TunebuildError, match=message):
        merged(base, trained, tmp_path)


def test_lora_on_embeddings_is_refused(tmp_path):
    base = save_base("llama", tmp_path / "base")
    trained = make_adapter(base, tmp_path / "trained", torch.float32, r=4, target_modules=["embed_tokens"])
    with pytest.raises(TunebuildError, match="cannot merge the adapter's tensor"):
        merged(base, trained, tmp_path)


def test_an_adapter_of_another_base_is_refused(tmp_path):
    mistral = save_base("mistral", tmp_path / "mistral")
    falcon = save_base("falcon", tmp_path / "falcon")
    trained = make_adapter(mistral, tmp_path / "trained", torch.float32, r=4, target_modules="all-linear")
    with pytest.raises(TunebuildError, match="the base has no weight"):
        merged(falcon, trained, tmp_path)


def test_a_half_adapter_and_overflow_are_refused(tmp_path):
    base = save_base("llama", tmp_path / "base")
    trained = make_adapter(base, tmp_path / "trained", torch.float32, r=4, target_modules="all-linear")
    file = trained / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    first = next(n for n in tensors if "lora_B" in n)
    save_file({**tensors, first: torch.full_like(tensors[first], float("inf"))}, file)
    with pytest.raises(TunebuildError, match="not a number after the merge"):
        merged(base, trained, tmp_path)
    save_file({n: t for n, t in tensors.items() if n != first}, file)
    (tmp_path / "out").rename(tmp_path / "gone")
    with pytest.raises(TunebuildError, match="lacks a half"):
        merged(base, trained, tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    base = save_base("mistral", tmp_path / "base", shard="50KB")
    shards = sorted(base.glob("model-*.safetensors"))
    assert len(shards) > 2
    trained = make_adapter(base, tmp_path / "trained", torch.float32, r=4, target_modules="all-linear")
    shards[1].unlink()
    with pytest.raises(TunebuildError, match=f"lacks {shards[1].name}"):
        merged(base, trained, tmp_path)


def test_shards_hold_everything_in_order_within_the_limit(tmp_path):
    tensors = list_tensors(save_base("llama", tmp_path / "base"))
    for limit in (1, 60_000, 10**9):
        shards = plan_shards(tensors, limit)
        assert [t for shard in shards for t in shard] == tensors
        assert all(len(s) == 1 or sum(t.size for t in s) <= limit for s in shards)
