"""An adapter that is served beside its base adds what was trained, or the build stops."""

from __future__ import annotations

import pytest
import torch

from support.faults import Case, flip
from tunebuild.errors import TunebuildError
from tunebuild.merge.proof.run import prove
from tunebuild.merge.proof.served import prove_served
from tunebuild.merge.run import copy_base
from tunebuild.serve.engines.model import load_model
from tunebuild.store import Silent

CONFIGS = {
    "lora": {},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {r"0\..*": 2}, "alpha_pattern": {r"1\..*": 32}, "use_rslora": True},
    "saved-whole": {"modules_to_save": ["norm"]},
    "tied-head": {
        "target_modules": [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "up_proj",
            "gate_proj",
            "down_proj",
            "lm_head",
        ],
        "ensure_weight_tying": True,
    },
}


@pytest.fixture(scope="module", params=CONFIGS)
def case(request, tmp_path_factory):
    return Case(tmp_path_factory.mktemp(request.param), request.param, config=CONFIGS[request.param]).make()


def served(case):
    return load_model(case.base, case.trained / "adapter", torch.bfloat16)


def test_what_the_server_loads_is_what_was_trained(case):
    adapter = case.trained / "adapter"
    tensors, off = prove_served(served(case), base=case.base, adapter=adapter)
    assert tensors >= 28
    assert 0 < off < 1e-5


@pytest.mark.parametrize("module", ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"])
@pytest.mark.parametrize("fault", ["scale", "factor", "swapped"])
def test_a_layer_that_adds_something_else_is_named(case, module, fault):
    model = served(case)
    layer = model.get_submodule(f"base_model.model.{module}")
    if fault == "scale":
        layer.scaling["default"] *= 1.01
    elif fault == "factor":
        layer.lora_B["default"].weight.data[0, 0] += 1e-3
    else:
        other = model.get_submodule(f"base_model.model.{module.replace('0', '1', 1)}")
        layer.lora_A["default"].weight.data = other.lora_A["default"].weight.data + 1
    with pytest.raises(TunebuildError) as caught:
        prove_served(model, base=case.base, adapter=case.trained / "adapter")
    assert all(module in problem.message for problem in caught.value.diagnostics)


def test_the_base_beside_an_adapter_is_the_published_one(tmp_path):
    case = Case(tmp_path, "none").make()
    (tmp_path / "copy").mkdir()
    copy_base(base=case.base, out=tmp_path / "copy", progress=Silent())
    model = tmp_path / "copy" / "model"
    proof = prove("none", base=case.base, trained=case.trained, merged=model, progress=Silent())
    assert (proof.kept, proof.updated) == (20, 0)
    flip(model / "model-base-00001.safetensors", 50_000, 0)
    with pytest.raises(TunebuildError, match="though nothing trained it"):
        prove("none", base=case.base, trained=case.trained, merged=model, progress=Silent())
