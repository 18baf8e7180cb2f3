"""Loops over the blocks of NF4, compiled as they are first called (half a second)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from bitsandbytes import functional
from numba import njit

_Values = npt.NDArray[np.float32]
_Bits = npt.NDArray[np.int16] | npt.NDArray[np.int32]

# Constants to the compiler.
_C = tuple(functional.get_4bit_type("nf4", device="cpu").numpy())
_B = tuple((low + high) / np.float32(2) for low, high in pairwise(_C))

_SMALLEST = np.float32(1e-38)  # bitsandbytes' for the largest value of a block, since it divides by that


@njit(nogil=True, error_model="numpy")
def largest_magnitudes(bits: _Bits, blocksize: int, out: _Values) -> None:
    """Write the largest magnitude of each block; the last one may be shorter.

    Args:
        bits: of values in float32, as int32, or in bfloat16, as int16. Magnitudes are in the order of their
            bits, and only whole numbers are compared many at once.
        blocksize: values of a block.
        out: gets the magnitudes.
    """
    sign = 8 * bits.itemsize - 1  # number of its bit
    largest = out.view(np.int32)
    for number in range(len(out)):
        block = bits[number * blocksize : (number + 1) * blocksize]
        most = block[0] & 0
        for index in range(len(block)):
            magnitude = block[index] & ((1 << sign) - 1)
            if magnitude > most:
                most = magnitude
        largest[number] = most << (31 - sign)
        if len(block) < blocksize:
            out[number] = max(out[number], _SMALLEST)  # bitsandbytes records what it divides that one by


@njit(nogil=True, error_model="numpy")
def through_4_bits(values: _Values, blocksize: int, largest: _Values, scales: _Values) -> None:
    """Replace values by what their codes stand for.

    Args:
        values: of whole blocks; the last one may be shorter.
        blocksize: values of a block.
        largest: magnitude in each block, by which its values are divided.
        scales: by which its codes' values are multiplied.
    """
    for number in range(len(largest)):
        block = values[number * blocksize : (number + 1) * blocksize]
        divisor, scale = max(largest[number], _SMALLEST), scales[number]
        # Blocks are multiplied and a last, shorter one is divided, as bitsandbytes does it: last bits differ.
        if len(block) == blocksize:
            factor = np.float32(1) / divisor
            for index in range(len(block)):
                block[index] *= factor
        else:
            for index in range(len(block)):
                block[index] /= divisor
        for index in range(len(block)):
            block[index] = _nearest(block[index]) * scale


@njit(error_model="numpy")
def _nearest(place: np.float32) -> np.float32:
    """Of a value between -1 and 1 the nearest that NF4 has.

    All borders are compared with and none is branched on: so many values go through this at once, ten times
    as fast as by a search.
    """
    code = _C[0]
    code = _C[1] if place > _B[0] else code
    code = _C[2] if place > _B[1] else code
    code = _C[3] if place > _B[2] else code
    code = _C[4] if place > _B[3] else code
    code = _C[5] if place > _B[4] else code
    code = _C[6] if place > _B[5] else code
    code = _C[7] if place > _B[6] else code
    code = _C[8] if place > _B[7] else code
    code = _C[9] if place > _B[8] else code
    code = _C[10] if place > _B[9] else code
    code = _C[11] if place > _B[10] else code
    code = _C[12] if place > _B[11] else code
    code = _C[13] if place > _B[12] else code
    code = _C[14] if place > _B[13] else code
    return _C[15] if place > _B[14] else code
