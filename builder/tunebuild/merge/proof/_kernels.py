"""Loops of the proof, compiled as they are first called."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.floating[Any]]
_Ints = npt.NDArray[np.int32]

# Sums may be taken in any order, which is what lets several values be added at once. NaN stays NaN.
_LOOSE = {"reassoc", "contract", "nsz"}


@njit(nogil=True, fastmath=_LOOSE, error_model="numpy")
def compare_rows(
    base: Floats,
    delta: Floats,
    row_gains: Floats,
    column_gains: Floats,
    merged: Floats,
    bits: _Ints,
    half_ulp: np.float32,
    smallest: np.float32,
    left: Floats,
    right: Floats,
    signs: Floats,
    worst: npt.NDArray[np.float32],
    sums: Floats,
    squares: Floats,
    errors: Floats,
    sizes: Floats,
) -> None:
    """Compare ``merged`` with ``(base + delta) * gains`` value by value; multiply what was added by probes.

    Args:
        base, delta, merged: ``[rows, columns]``.
        row_gains, column_gains: ``[rows]`` and ``[columns]``; 1 without DoRA.
        bits: of ``merged`` in float32.
        half_ulp: half the distance of two stored numbers between 1 and 2.
        smallest: the smallest normal number of the stored type.
        left, right: ``[rows]`` and ``[columns]``, whose product bounds what float32 loses in the update.
        signs: ``[2, columns]``, probes of +1 and -1.
        worst: ``[rows]``, gets the largest share of what is allowed; NaN if a value is not a number.
        sums: ``[rows, 2]``, gets ``(merged - base) @ signs.T``.
        squares, errors, sizes: ``[rows]``, get sums of squares: of bounds, deviations and what was added.
    """
    rows, columns = base.shape
    ratios, exponents = np.empty(columns, np.float32), np.empty(columns, np.int32)
    in_order, powers = ratios.view(np.int32), exponents.view(np.float32)
    for i in range(rows):
        gain, noise, zero = row_gains[i], left[i], signs[0, 0] * 0
        one, two, square, error, size = zero, zero, zero, zero, zero
        for j in range(columns):
            exponents[j] = bits[i, j] & 0x7F800000
        for j in range(columns):
            power = powers[j] if powers[j] > smallest else smallest
            allowed = power * half_ulp + noise * right[j]
            added = merged[i, j] - base[i, j]
            off = merged[i, j] - (base[i, j] + delta[i, j]) * gain * column_gains[j]
            ratios[j] = abs(off) / allowed
            one += added * signs[0, j]
            two += added * signs[1, j]
            square += allowed * allowed
            error += off * off
            size += added * added
        sums[i, 0], sums[i, 1] = one, two
        squares[i], errors[i], sizes[i] = square, error, size
        # Bits of numbers that are not negative are in the order of the numbers, and NaN is above all.
        highest = np.int32(0)
        for j in range(columns):
            ratio = in_order[j] & 0x7FFFFFFF
            highest = ratio if ratio > highest else highest
        in_order[0] = highest
        worst[i] = ratios[0]


@njit(nogil=True, error_model="numpy")
def block_maxima(values: npt.NDArray[np.float32], blocksize: int, out: npt.NDArray[np.float32]) -> None:
    """Largest magnitudes of consecutive blocks of values, of which the last may be shorter."""
    bits, found = values.view(np.int32), out.view(np.int32)
    for number in range(len(out)):
        highest = np.int32(0)
        for bit in bits[number * blocksize : (number + 1) * blocksize]:
            magnitude = bit & 0x7FFFFFFF
            highest = magnitude if magnitude > highest else highest
        found[number] = highest


@njit(nogil=True, error_model="numpy")
def nearest_codes(
    values: npt.NDArray[np.float32],
    blocksize: int,
    maxima: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float32],
    borders: npt.NDArray[np.float32],
    codes: npt.NDArray[np.float32],
) -> None:
    """Replace values by what the 4-bit codes nearest to them stand for.

    A code's number is how many of the 15 ``borders`` lie below the value as a share of its block's maximum.
    """
    numbers = np.empty(blocksize, np.int32)
    for number in range(len(maxima)):
        block = values[number * blocksize : (number + 1) * blocksize]
        limit = max(maxima[number], np.float32(1e-38))
        if len(block) == blocksize:
            factor = np.float32(1) / limit
            for j in range(len(block)):
                block[j] *= factor
        else:
            for j in range(len(block)):
                block[j] /= limit
        numbers[:] = 0
        for border in borders:
            for j in range(len(block)):
                numbers[j] += block[j] > border
        scale = scales[number]
        for j in range(len(block)):
            block[j] = codes[numbers[j]] * scale
