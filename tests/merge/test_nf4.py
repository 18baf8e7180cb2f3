"""Our way through 4 bits beside bitsandbytes' own, bit for bit."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, get_4bit_type, quantize_4bit
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tunebuild.merge.nf4 import NF4RoundTrip
from tunebuild.merge.safetensors_io import list_tensors

CODES = get_4bit_type("nf4", device="cpu")
BORDERS = (CODES[:-1] + CODES[1:]) / 2


def theirs(weight, blocksize, double):
    codes, state = quantize_4bit(weight, blocksize=blocksize, compress_statistics=double, quant_type="nf4")
    state.shape = torch.Size((1, weight.numel()))  # in one row, where the kernel is right for every width
    return dequantize_4bit(codes, state).view(weight.shape)


def ours(weight, directory, blocksize, double, rows):
    save_file({"w": weight}, directory / "model.safetensors")
    (stored,) = list_tensors(directory)
    trip = NF4RoundTrip(frozenset({"w"}), weight.dtype, blocksize, double).begin(stored, rows)
    pieces = [trip.piece(n, weight[n : n + trip.rows]) for n in range(0, len(weight), trip.rows)]
    assert len(pieces) > 1 or trip.rows >= len(weight)
    return torch.cat(pieces)


def assert_same(found, expected):
    assert found.dtype == expected.dtype
    assert torch.equal(found.view(torch.uint8), expected.contiguous().view(torch.uint8))


# The last ones: blocks across rows, blocks cut short by the end, more values than are worked on at once.
@pytest.mark.parametrize("shape", [(700, 256), (64, 64), (130, 96), (33, 100), (3, 98_000)], ids=str)
@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("blocksize", [64, 256])
def test_in_pieces_it_is_bitsandbytes_of_the_whole(tmp_path, shape, double, dtype, blocksize):
    torch.manual_seed(0)
    weight = torch.randn(shape).mul_(0.02).to(dtype)
    found = ours(weight, tmp_path, blocksize, double, 40)
    assert_same(found, theirs(weight, blocksize, double))
    assert float((found.float() - weight.float()).norm() / weight.float().norm()) < 0.15


@pytest.mark.quick
@pytest.mark.parametrize("largest", [1.0, 0.0173, 1e-36, 6e4])
def test_values_on_a_border_and_beside_it_get_the_same_code(tmp_path, largest):
    """A border times the block's largest value, give or take a bit."""
    near = (BORDERS * largest).view(torch.int32)[:, None] + torch.arange(-4, 5, dtype=torch.int32)
    values = near.view(torch.float32).flatten()[: 15 * 9]
    weight = torch.zeros(3, 64)
    weight[:, 0] = largest
    weight[:, 1:46] = values.view(3, 45)
    for dtype in (torch.float32, torch.bfloat16):
        for double in (False, True):
            cast = weight.to(dtype)
            assert_same(ours(cast, tmp_path, 64, double, 1), theirs(cast, 64, double))


# None subnormal: some processors take such values for zero when they make 16 bits of 32.
SIZES = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e30])


@given(st.integers(0, 1 << 32), st.integers(1, 2500), SIZES, st.sampled_from([1, 3, 9]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_values_are_rounded_as_bitsandbytes_rounds_them(seed, count, size, power, double):
    """Spread evenly, or crowded around zero, with zeros among them."""
    # An even number: for odd ones bitsandbytes compiles a kernel each.
    drawn = torch.rand(2 * count, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    weight = (drawn**power * (drawn < 0.9) * size)[None]
    with TemporaryDirectory() as directory:
        assert_same(ours(weight, Path(directory), 64, double, 1), theirs(weight, 64, double))


def test_what_is_no_number_stays_none(tmp_path):
    for bad in (float("nan"), float("inf")):
        weight = torch.ones(2, 64)
        weight[1, 3] = bad
        assert not ours(weight, tmp_path, 64, False, 1).isfinite().all()
