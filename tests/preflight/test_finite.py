"""A base with a weight that is no number is refused before it is trained on, with the tensor's name."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from support.models import save_base
from tunebuild.cli import app
from tunebuild.errors import TunebuildError
from tunebuild.preflight.finite import check_finite
from tunebuild.store import Silent

BAD = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2)


def refused(path):
    with pytest.raises(TunebuildError) as caught:
        check_finite([path], Silent())
    return str(caught.value)


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("bad", BAD)
def test_one_bad_number_is_found_in_any_type_and_place(kind, bad, tmp_path):
    good = torch.linspace(-3, 3, 1000).to(kind)
    limits = torch.tensor([torch.finfo(kind).max, torch.finfo(kind).min, -0.0, 0.0], dtype=torch.float64).to(
        kind
    )
    spoilt = good.clone()
    spoilt[777] = BAD[bad]
    save_file({"a.good": good, "limits": limits, "b.bad": spoilt, "n": torch.arange(4)}, tmp_path / "w")
    assert "b.bad in w: 1 of 1,000 numbers" in refused(tmp_path / "w")
    save_file({"a.good": good, "limits": limits}, tmp_path / "w")
    check_finite([tmp_path / "w"], Silent())


def test_the_nan_of_a_type_without_infinities_is_found(tmp_path):
    numbers = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    save_file({"w": numbers}, tmp_path / "w")
    assert "2 of 256 numbers" in refused(tmp_path / "w")


def test_a_mask_may_be_made_of_infinities(tmp_path):
    mask = torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), float("-inf"))
    save_file({"h.attn_mask": mask}, tmp_path / "w")
    check_finite([tmp_path / "w"], Silent())
    mask[0, 0] = float("nan")
    save_file({"h.attn_mask": mask}, tmp_path / "w")
    assert "h.attn_mask in w: 1 of 16" in refused(tmp_path / "w")


def test_memory_is_buffers_whatever_the_size_of_a_tensor(tmp_path):
    big = torch.zeros(40 << 20)  # 160 MiB
    big[-1] = float("inf")
    save_file({"big": big}, tmp_path / "w")
    tracemalloc.start()
    try:
        assert "big in w: 1 of" in refused(tmp_path / "w")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_plan_and_build_refuse_and_a_mended_base_is_looked_at_again(tmp_path):
    save_base("llama", tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "Why?", "answer": "So."}) + "\n")
    spec = {
        "apiVersion": "tunebuild/v1",
        "name": "tiny",
        "data": {"train": [{"path": "rows.jsonl", "format": "qa"}]},
        "model": {"base": "./base"},
        "prompt": {"template": "chatml"},
        "tuning": {"method": "lora"},
    }
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    weights = tmp_path / "base" / "model.safetensors"
    whole = load_file(weights)
    name = "model.layers.1.mlp.up_proj.weight"
    spoilt = {**whole, name: whole[name].clone()}
    spoilt[name][3, 5] = float("nan")
    save_file(spoilt, weights, {"format": "pt"})

    def run(verb):
        argv = [verb, str(tmp_path / "spec.yaml"), "--store", str(tmp_path / "store")]
        return CliRunner().invoke(app, argv, standalone_mode=False).exception

    for verb in ("plan", "build"):
        error = run(verb)
        assert isinstance(error, TunebuildError)
        assert f"{name} in model.safetensors: 1 of" in str(error)
        assert error.diagnostics[0].path == "model.base"
    assert not list((tmp_path / "store" / "records").glob("train/*"))
    save_file(whole, weights, {"format": "pt"})
    assert run("plan").exit_code == 2
