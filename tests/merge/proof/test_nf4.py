"""The proof's own way through 4 bits is bitsandbytes', bit for bit."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, get_4bit_type, quantize_4bit
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tunebuild.merge.proof._files import slabs
from tunebuild.merge.proof._nf4 import FourBit

CODES = get_4bit_type("nf4", device="cpu")
BORDERS = (CODES[:-1] + CODES[1:]) / 2


def theirs(weight, double):
    codes, state = quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type="nf4")
    state.shape = torch.Size((1, weight.numel()))  # in one row, where the kernel is right for every width
    return dequantize_4bit(codes, state).view(weight.shape)


def ours(weight, directory, double, rows):
    save_file({"w.weight": weight}, directory / "model.safetensors")
    record = {"modules": ["w"], "load_dtype": str(weight.dtype).removeprefix("torch."), "blocksize": 64}
    record |= {"double_quant": double, "bitsandbytes": version("bitsandbytes")}
    (directory / "quantization.json").write_text(json.dumps(record))
    four, slab = FourBit.read(directory / "quantization.json"), slabs(directory)["w.weight"]
    with slab.file.open("rb") as file:
        together = four.rows_together(slab.columns, rows)
        return torch.cat(list(four.held(slab, file.fileno(), together))).to(weight.dtype)


@pytest.mark.parametrize("shape", [(700, 256), (64, 64), (130, 96), (33, 100)], ids=str)
@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_held_weights_are_bitsandbytes_own(tmp_path, shape, double, dtype):
    torch.manual_seed(0)
    weight = torch.randn(shape).mul_(0.02).to(dtype)
    assert torch.equal(ours(weight, tmp_path, double, 40), theirs(weight, double))


@pytest.mark.parametrize("largest", [1.0, 0.0173, 1e-36, 6e4])
def test_values_on_a_border_and_beside_it_get_the_same_code(tmp_path, largest):
    near = (BORDERS * largest).view(torch.int32)[:, None] + torch.arange(-4, 5, dtype=torch.int32)
    weight = torch.zeros(3, 64)
    weight[:, 0] = largest
    weight[:, 1:46] = near.view(torch.float32).flatten().view(3, 45)
    for double in (False, True):
        assert torch.equal(ours(weight, tmp_path, double, 1), theirs(weight, double))


@given(st.integers(0, 1 << 32), st.integers(1, 1200), st.sampled_from([1, 3, 9]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_values_are_rounded_as_bitsandbytes_rounds_them(tmp_path_factory, seed, count, power, double):
    drawn = torch.rand(2 * count, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    weight = (drawn**power * (drawn < 0.9))[None]
    assert torch.equal(ours(weight, tmp_path_factory.mktemp("nf4"), double, 1), theirs(weight, double))
