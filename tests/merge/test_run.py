"""The merged model is the trained model: held against PEFT, bitsandbytes and plain transformers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from support.models import ALL_ARCHITECTURES, ARCHITECTURES, save_base
from support.rows import write_rows
from tunebuild.errors import TunebuildError
from tunebuild.merge.adapter_file import Adapter
from tunebuild.merge.low_rank import LowRankUpdate
from tunebuild.merge.proof.run import prove
from tunebuild.merge.run import merge_adapter
from tunebuild.merge.safetensors_io import copy_tensor, list_tensors, make_shard, plan_shards
from tunebuild.merge.tensors import TensorMerger
from tunebuild.serve.engines.model import load_model
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.model.adapter import save_adapter
from tunebuild.train.model.base import describe_quantization, load_base
from tunebuild.train.model.tied import merged_in_memory
from tunebuild.train.plan.settings import TrainSettings


def make_adapter(base, directory, dtype, **config):
    """A LoRA adapter with a random update, made by PEFT on the 16-bit base."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:  # zeros at first
            torch.nn.init.normal_(parameter, std=0.02)
        elif parameter.requires_grad and "lora_A" not in name:  # magnitudes, and modules trained whole
            parameter.data.mul_(1 + 0.1 * torch.rand_like(parameter))
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


LINEAR = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
PATTERNS = {"rank_pattern": {r"\d\..*mlp\..*": 2}, "alpha_pattern": {r"1\..*mlp\..*": 32}}


def by_name(directory):
    return {t.name: t.read() for t in list_tensors(directory)}


def merged_by_peft(base, trained, dtype, directory):
    """What tutorials do, read back from its files."""
    reference = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=dtype), trained / "adapter"
    )
    reference.merge_and_unload().save_pretrained(directory)
    return load_file(directory / "model.safetensors")


def assert_equal_to_peft(base, trained, tmp_path, dtype):
    ours = merged(base, trained, tmp_path, shard_bytes=70_000)
    assert len(list(ours.glob("*.safetensors"))) > 1
    found, expected = by_name(ours), merged_by_peft(base, trained, dtype, tmp_path / "peft")
    assert found.keys() == expected.keys()
    assert [n for n in expected if not torch.equal(found[n], expected[n])] == []
    return found


@pytest.mark.parametrize(
    "config",
    [
        LINEAR,
        {**LINEAR, "r": 8, "use_rslora": True},
        {**LINEAR, "rank_pattern": PATTERNS["rank_pattern"]},
        {**LINEAR, "alpha_pattern": PATTERNS["alpha_pattern"]},
        {**LINEAR, "use_dora": True},
        {**LINEAR, **PATTERNS, "use_dora": True, "use_rslora": True},
        {**LINEAR, "modules_to_save": ["norm", "ln_f"]},
    ],
    ids=["lora", "rslora", "rank-pattern", "alpha-pattern", "dora", "all-at-once", "saved-whole"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", sorted(ALL_ARCHITECTURES))
def test_bit_equal_to_peft(tmp_path, architecture, dtype, config):
    base = save_base(architecture, tmp_path / "base", dtype=dtype, shard="50KB")
    trained = make_adapter(base, tmp_path / "trained", dtype, **config)
    assert_equal_to_peft(base, trained, tmp_path, dtype)


@pytest.mark.parametrize("saved", ["embed_tokens", "lm_head"])
def test_tied_embeddings_trained_whole_are_one_tensor(tmp_path, saved):
    base = save_base("llama", tmp_path / "base")
    trained = make_adapter(
        base, tmp_path / "trained", torch.float32, **LINEAR, modules_to_save=[saved], ensure_weight_tying=True
    )
    found, before = assert_equal_to_peft(base, trained, tmp_path, torch.float32), by_name(base)
    assert "lm_head.weight" not in found
    assert not torch.equal(found["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


def test_modules_trained_whole_beside_an_untied_head(tmp_path):
    base = save_base("mistral", tmp_path / "base")
    trained = make_adapter(
        base, tmp_path / "trained", torch.float32, **LINEAR, modules_to_save=["lm_head", "embed_tokens"]
    )
    found, before = assert_equal_to_peft(base, trained, tmp_path, torch.float32), by_name(base)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        assert not torch.equal(found[name], before[name])


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("llama", {"target_modules": ["lm_head"]}),
        ("llama", {"modules_to_save": ["embed_tokens"]}),
        ("llama", {"modules_to_save": ["lm_head"]}),
        ("llama", {"modules_to_save": ["embed_tokens", "lm_head"]}),
        # PEFT does not know the name, and trains it apart from the head though told not to.
        ("falcon", {"modules_to_save": ["word_embeddings"], "ensure_weight_tying": True}),
    ],
)
def test_what_would_part_tied_embeddings_is_refused(tmp_path, architecture, config):
    base = save_base(architecture, tmp_path / "base", tie_word_embeddings=True)
    trained = make_adapter(base, tmp_path / "trained", torch.float32, **{**LINEAR, **config})
    with pytest.raises(TunebuildError) as caught:
        merged(base, trained, tmp_path)
    assert caught.value.diagnostics[0].code == "tied-embeddings"


def test_a_head_of_its_own_takes_a_low_rank_update(tmp_path):
    base = save_base("mistral", tmp_path / "base")
    trained = make_adapter(
        base, tmp_path / "trained", torch.float32, **{**LINEAR, "target_modules": ["lm_head"]}
    )
    assert_equal_to_peft(base, trained, tmp_path, torch.float32)


def shard_digests(model, kind):
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in model.glob(f"model-{kind}-*")}


@pytest.mark.parametrize("shard", ["50KB", "1GB"], ids=["sharded", "single-file"])
@pytest.mark.parametrize("strategy", ["original", "dequantized"])
def test_adapters_of_a_base_share_what_they_do_not_touch(tmp_path, strategy, shard):
    base = save_base("mistral", tmp_path / "base", dtype=torch.bfloat16, shard=shard)
    settings = TrainSettings(TuningSpec(), "cpu", "bfloat16")
    record = describe_quantization(load_base(base, settings), settings)
    models = []
    for name, targets in (
        ("one", ["q_proj", "v_proj"]),
        ("two", ["q_proj", "v_proj"]),
        ("three", ["up_proj"]),
    ):
        (tmp_path / name).mkdir()
        config = {**LINEAR, "r": 4 if name == "one" else 8, "target_modules": targets}
        trained = make_adapter(base, tmp_path / name / "trained", torch.bfloat16, **config)
        (trained / "quantization.json").write_text(json.dumps(record.to_json()))
        models.append(merged(base, trained, tmp_path / name, strategy, shard_bytes=70_000))
    one, two, three = models
    stored = shard_digests(one, "base")
    assert len(stored) > 1
    assert shard_digests(two, "base") == stored
    assert shard_digests(two, "dequantized") == shard_digests(one, "dequantized")
    assert shard_digests(two, "merged").keys() == shard_digests(one, "merged").keys()
    assert not set(shard_digests(two, "merged").values()) & set(shard_digests(one, "merged").values())
    if strategy == "dequantized":
        # What is not quantized is the same for all; what is depends on who else has an adapter.
        assert shard_digests(three, "base") == stored
        assert shard_digests(one, "dequantized")
    before = {t.name: (t.dtype, raw(t)) for t in list_tensors(base)}
    kept = [t for t in list_tensors(one) if t.file.name.startswith("model-base")]
    assert [t.name for t in kept] == [n for n in before if n in {t.name for t in kept}]
    assert all(before[t.name] == (t.dtype, raw(t)) for t in kept)
    assert len(kept) == len(before) - (14 if strategy == "dequantized" else 4)
    AutoModelForCausalLM.from_pretrained(one)


def raw(tensor):
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        return stream.read(tensor.size)


def test_values_beyond_16_bits_are_refused(tmp_path):
    base = save_base("llama", tmp_path / "base", dtype=torch.float16)
    trained = make_adapter(base, tmp_path / "trained", torch.float16, **LINEAR)
    file = trained / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    first = next(n for n in sorted(tensors) if "lora_B" in n)
    a = first.replace("lora_B", "lora_A")
    save_file({**tensors, first: torch.full_like(tensors[first], 1e5), a: torch.ones_like(tensors[a])}, file)
    with pytest.raises(TunebuildError, match="too large for F16"):
        merged(base, trained, tmp_path)


ENDS = {"llama": ("q_proj", "lm_head"), "mistral": ("q_proj", "embed_tokens", "lm_head")}


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [
        *((name, "all-linear") for name in sorted(ARCHITECTURES)),
        *ENDS.items(),
        ("falcon", ("query_key_value", "word_embeddings")),
    ],
)
def test_dequantized_is_the_model_that_was_trained(tmp_path, architecture, targets):
    base = save_base(architecture, tmp_path / "base", dtype=torch.bfloat16)
    write_rows(base, tmp_path / "rows")
    lora = LoraSpec(r=4, targets=targets)
    tuning = TuningSpec(epochs=8, batch_size=5, learning_rate=1e-2, lora=lora, max_length=128)
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

    def distance(model):
        return float((logits(model, ids) - truth).norm() / truth.norm())

    prove("dequantized", base=base, trained=tmp_path / "trained", merged=ours, progress=Silent())
    if targets != "all-linear":
        assert distance(load_model(base, adapter, torch.float32)) > 4 * distance(plain)
        return  # PEFT merges what is tied twice
    requantized = PeftModel.from_pretrained(load_base(base, settings), adapter).merge_and_unload()
    original = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter
    ).merge_and_unload()

    assert distance(plain) < 0.02
    assert distance(requantized) > 4 * distance(plain)
    assert distance(original) > 4 * distance(plain)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_dequantized_equals_bitsandbytes_own_dequantization(tmp_path, dora):
    base = save_base("llama", tmp_path / "base")
    settings = TrainSettings(TuningSpec(), "cpu", "float32")
    trained = make_adapter(base, tmp_path / "trained", torch.float32, **LINEAR, use_dora=dora)
    model = load_base(base, settings)
    record = describe_quantization(model, settings)
    (trained / "quantization.json").write_text(json.dumps(record.to_json()))
    ours = {t.name: t.read() for t in list_tensors(merged(base, trained, tmp_path, "dequantized"))}
    plain = model.dequantize()
    expected = PeftModel.from_pretrained(plain, trained / "adapter").merge_and_unload().state_dict()
    assert [n for n, t in ours.items() if not torch.equal(t, expected[n])] == []


def test_another_bitsandbytes_is_refused(tmp_path):
    base = save_base("llama", tmp_path / "base")
    settings = TrainSettings(TuningSpec(), "cpu", "float32")
    trained = make_adapter(base, tmp_path / "trained", torch.float32, r=4, target_modules="all-linear")
    record = replace(describe_quantization(load_base(base, settings), settings), bitsandbytes="0.1")
    (trained / "quantization.json").write_text(json.dumps(record.to_json()))
    with pytest.raises(TunebuildError, match=r"trained with bitsandbytes 0\.1"):
        merged(base, trained, tmp_path, "dequantized")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "lacks a part"),
        ({"trainable_token_indices": [1]}, "lacks the rows"),
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


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [("mistral", ["embed_tokens"]), ("mistral", ["embed_tokens", "lm_head"]), ("llama", ["lm_head"])],
    ids=["embedding", "both", "tied"],
)
def test_embedding_and_head_answer_as_peft_does(tmp_path, architecture, targets):
    base = save_base(architecture, tmp_path / "base")
    tied = architecture == "llama"
    config = {**LINEAR, "target_modules": ["q_proj", *targets], "ensure_weight_tying": tied}
    trained = make_adapter(base, tmp_path / "trained", torch.float32, **config)
    found, before = by_name(merged(base, trained, tmp_path)), by_name(base)
    assert ("lm_head.weight" in found) == (not tied)
    assert not torch.equal(found["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    reference = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), trained / "adapter")
    ids = torch.arange(10, 74)[None, :]
    expected = logits(reference, ids)
    torch.testing.assert_close(logits(plain, ids), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(merged_in_memory(reference), ids), expected, rtol=1e-4, atol=1e-4)


def test_dora_of_an_embedding_is_refused(tmp_path):
    base = save_base("mistral", tmp_path / "base")
    config = {**LINEAR, "target_modules": ["embed_tokens"], "use_dora": True}
    trained = make_adapter(base, tmp_path / "trained", torch.float32, **config)
    with pytest.raises(TunebuildError, match="no DoRA for an embedding"):
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
    with pytest.raises(TunebuildError, match="lacks a part"):
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


@pytest.mark.parametrize("config", [LINEAR, {**LINEAR, "use_dora": True}], ids=["lora", "dora"])
@pytest.mark.parametrize("values", [64 * 8, 64 * 7 + 3, 1], ids=["even", "odd", "a-row-each"])
def test_blocks_of_rows_make_no_difference(tmp_path, monkeypatch, values, config):
    monkeypatch.setattr("tunebuild.merge.tensors._BLOCK", values)
    base = save_base("mistral", tmp_path / "base", dtype=torch.bfloat16)
    trained = make_adapter(base, tmp_path / "trained", torch.bfloat16, **config)
    assert_equal_to_peft(base, trained, tmp_path, torch.bfloat16)


def test_blocks_of_a_real_width_equal_the_whole_product(tmp_path):
    torch.manual_seed(2)
    weight, a, b = torch.randn(3000, 1500), torch.randn(16, 1500), torch.randn(3000, 16)
    whole = (b @ a).mul_(2.0).add_(weight.bfloat16())
    save_file({"w": weight.bfloat16()}, tmp_path / "model.safetensors")
    (stored,) = list_tensors(tmp_path)
    (place,) = make_shard(tmp_path / "out.safetensors", [stored])
    update = LowRankUpdate(a, b, 2.0)
    change = TensorMerger(Adapter({"w": update}, {}), None).write(stored, place)
    assert torch.equal(load_file(tmp_path / "out.safetensors")["w"], whole.bfloat16())
    assert change == pytest.approx(float((2 * b @ a).norm() / whole.norm()), rel=1e-4)


def test_the_file_that_a_write_leaves_incomplete_is_named(tmp_path):
    save_file({"w": torch.ones(4, 4)}, tmp_path / "model.safetensors")
    (stored,) = list_tensors(tmp_path)
    (place,) = make_shard(tmp_path / "out.safetensors", [stored])
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(stored.start + 8)
    with pytest.raises(TunebuildError, match=r"model\.safetensors was cut short"):
        copy_tensor(stored, place)
    with pytest.raises(TunebuildError, match=r"model\.safetensors was cut short"):
        stored.read()


MEMORY = """
import sys
from pathlib import Path
from tunebuild.merge.nf4 import NF4RoundTrip
from tunebuild.merge.proof.run import prove
from tunebuild.merge.run import merge_adapter
from tunebuild.store import Silent

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024

before = peak()
work = Path(sys.argv[1])
merge_adapter("original", base=work / "base", trained=work / "trained", out=work / "out", progress=Silent())
print(before, peak() - before, *{"transformers", "peft", "safetensors.torch"}.intersection(sys.modules))
"""


def test_memory_does_not_grow_with_the_model(tmp_path):
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8}
    base = save_base("llama", tmp_path / "base", **sizes)
    make_adapter(base, tmp_path / "trained", torch.float32, **LINEAR)
    size = sum(f.stat().st_size for f in base.glob("*.safetensors")) >> 20
    (tmp_path / "out").mkdir()
    argv = [sys.executable, "-c", MEMORY, str(tmp_path)]
    before, grown, *libraries = subprocess.run(
        argv, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not libraries, "the merge imports what it does not need"
    assert size > 400
    assert int(grown) < 40 + 25 * len(os.sched_getaffinity(0))
    assert int(before) < 450  # bitsandbytes and what torch loads for it
