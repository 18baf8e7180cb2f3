"""First values from the base's weights: what is saved belongs to the published base."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from support.models import save_base
from support.rows import write_rows
from tunebuild.errors import TunebuildError
from tunebuild.merge.run import merge_adapter
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.model.adapter import add_adapter, save_adapter, trainable_copy
from tunebuild.train.model.base import load_base
from tunebuild.train.plan.execution import plan_training
from tunebuild.train.plan.hardware import decide
from tunebuild.train.plan.settings import TrainSettings

IDS = torch.arange(20, 52)[None, :]


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def adapted(base, init, method, **lora):
    tuning = TuningSpec(method=method, lora=LoraSpec(r=4, alpha=8, init=init, **lora))
    return add_adapter(load_base(base, TrainSettings(tuning, "cpu", "float32")), tuning, base=base)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_the_saved_adapter_is_the_difference_on_the_published_base(tmp_path, init, rslora):
    base = save_base("llama", tmp_path / "base")
    published = AutoModelForCausalLM.from_pretrained(base)
    model = adapted(base, init, "lora", rslora=rslora)
    assert any(
        (moved - kept).norm() > 0.1 * kept.norm()
        for (name, kept) in published.named_parameters()
        if name.endswith("q_proj.weight")
        for moved in [model.get_submodule("base_model.model." + name.rpartition(".")[0]).base_layer.weight]
    ), "the first update was not taken out of the base"
    first = trainable_copy(model)
    assert torch.allclose(logits(model), logits(published), atol=1e-4), "training begins at another model"
    for number, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    trained = logits(model)
    assert (trained - logits(published)).abs().max() > 0.1
    save_adapter(model, tmp_path / "adapter", first=first)
    assert {t.shape[0] for n, t in load_file(tmp_path / "adapter/adapter_model.safetensors").items()
            if "lora_A" in n} == {8}  # fmt: skip
    loaded = PeftModel.from_pretrained(published, tmp_path / "adapter")
    assert torch.allclose(logits(loaded), trained, atol=1e-4)
    (tmp_path / "out").mkdir()
    merge_adapter("original", base=base, trained=tmp_path, out=tmp_path / "out", progress=Silent())
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    assert torch.allclose(logits(merged), trained, atol=1e-4)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_training_saves_what_it_changed(tmp_path, init):
    base = save_base("llama", tmp_path / "base")
    write_rows(base, tmp_path / "rows")
    tuning = TuningSpec(
        method="lora", lora=LoraSpec(r=4, alpha=8, init=init), epochs=1, batch_size=4, learning_rate=1e-2,
        warmup_steps=0, max_length=128,
    )  # fmt: skip
    places = {name: tmp_path / name for name in ("work", "out")}
    for place in places.values():
        place.mkdir()
    settings = TrainSettings(tuning, "cpu", "float32")
    train_adapter(settings, data=tmp_path / "rows", base=base, progress=Silent(), **places)
    published = AutoModelForCausalLM.from_pretrained(base)
    before = logits(published)
    after = logits(PeftModel.from_pretrained(published, places["out"] / "adapter"))
    assert (after - before).abs().max() > 0.01


def test_a_rank_beyond_a_weight_is_refused():
    tensors = {"model.layers.0.k_proj.weight": (8, 64), "model.embed_tokens.weight": (64, 64)}
    settings = TrainSettings(TuningSpec(method="lora", lora=LoraSpec(r=16, init="pissa")), "cpu", "float32")
    with pytest.raises(TunebuildError, match=r"no rank of 16 out of model.layers.0.k_proj, which is 8 x 64"):
        plan_training({}, tensors, settings, np.array([5]))


def lost(model):
    """What each weight still lacks to the published one, as a share, with the adapter added."""
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            weight = module.get_base_layer().weight
            found[name.removeprefix("base_model.model.")] = dequantize_4bit(
                weight.data, weight.quant_state
            ).float() + module.get_delta_weight("default")
    return found


def test_loftq_starts_from_the_quantization_error(tmp_path):
    base = save_base("llama", tmp_path / "base")
    published = load_file(base / "model.safetensors")
    plain, made_up = lost(adapted(base, "default", "qlora")), lost(adapted(base, "loftq", "qlora"))
    assert plain.keys() == made_up.keys()
    assert len(plain) == 14
    for name, weight in made_up.items():
        error = published[f"{name}.weight"] - plain[name]
        left, sizes, right = torch.linalg.svd(error, full_matrices=False)
        best = (error - left[:, :4] * sizes[:4] @ right[:4]).norm()  # of rank 4
        assert best < 0.97 * error.norm()
        assert (published[f"{name}.weight"] - weight).norm() <= 1.001 * best, name


def test_an_init_that_the_chosen_method_does_not_take_is_refused():
    quantized = TuningSpec(method="auto", lora=LoraSpec(init="pissa"))
    assert decide(quantized, "cpu", base_parameters=10**6, memory=10**9).tuning.method == "lora"
    with pytest.raises(TunebuildError, match=r"pissa.*does not go with method qlora"):
        decide(quantized, "cpu", base_parameters=10**9, memory=10**9)
    with pytest.raises(TunebuildError, match=r"loftq.*does not go with method lora"):
        decide(TuningSpec(method="auto", lora=LoraSpec(init="loftq")), "cpu", base_parameters=1, memory=10**9)
