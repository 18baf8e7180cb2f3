"""The fused layer computes what PEFT's does, forward and backward."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from support.models import ALL_ARCHITECTURES, save_base
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.train.model.adapter import add_adapter
from tunebuild.train.model.base import load_base
from tunebuild.train.model.fused_lora import FusedLinear, FusedLinear4bit, use_fused_layers
from tunebuild.train.plan.settings import TrainSettings


def outcome(base, method, *, fused, rslora=False):
    """Loss and gradients by name, with B no longer zero."""
    tuning = TuningSpec(method=method, lora=LoraSpec(r=4, alpha=12, rslora=rslora))
    settings = TrainSettings(tuning, "cpu", "float32")
    model = add_adapter(load_base(base, settings), tuning, base=base, fused=fused)
    chance = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=chance)
    ids = torch.arange(5, 53).view(2, 24)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    layers = [m for m in model.modules() if isinstance(m, FusedLinear | FusedLinear4bit)]
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.requires_grad}, layers


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("architecture", sorted(ALL_ARCHITECTURES))
def test_loss_and_gradients_are_pefts(tmp_path, architecture, method, rslora):
    base = save_base(architecture, tmp_path / "base")
    loss, gradients, none = outcome(base, method, fused=False, rslora=rslora)
    fused_loss, fused_gradients, layers = outcome(base, method, fused=True, rslora=rslora)
    assert not none
    assert len(layers) == len(gradients) / 2
    assert {type(layer) for layer in layers} == {FusedLinear if method == "lora" else FusedLinear4bit}
    assert fused_loss == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == fused_gradients.keys()
    for name, gradient in gradients.items():
        assert gradient.abs().sum() > 0
        assert (fused_gradients[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def layers(bias=True):
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["0"], init_lora_weights=False)
    use_fused_layers(config)
    return get_peft_model(nn.Sequential(nn.Linear(16, 8, bias=bias)), config)


def test_a_bias_is_added_once():
    model = layers()
    x = torch.randn(3, 5, 16)
    layer = model.base_model.model[0]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    base = layer.get_base_layer()
    expected = x @ base.weight.T + base.bias + 2.0 * (x @ a.T) @ b.T
    assert torch.allclose(model(x), expected, atol=1e-6)


def test_a_disabled_adapter_is_not_added():
    model = layers()
    x = torch.randn(3, 16)
    with model.disable_adapter():
        assert torch.equal(model(x), model.base_model.model[0].get_base_layer()(x))
    assert not torch.equal(model(x), model.base_model.model[0].get_base_layer()(x))


@pytest.mark.parametrize("bias", [False, True])
def test_the_operator_is_one_that_compilers_understand(bias):
    from tunebuild.train.model.fused_lora import _forward

    x, weight, a, b = (torch.randn(*shape) for shape in ((6, 16), (8, 16), (4, 16), (8, 4)))
    for tensor in (x, a, b):
        tensor.requires_grad_()
    arguments = (x, weight, [], 0, 0, torch.randn(8) if bias else None, a, b, 0.5)
    torch.library.opcheck(_forward, arguments)
