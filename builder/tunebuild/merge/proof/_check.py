"""Compares one written tensor, bit for bit, with what it has to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunebuild.merge.proof._files import Slab, first_difference
from tunebuild.merge.proof._nf4 import FourBit

#: Values worked on together; a thread holds a few such blocks.
BLOCK = 1 << 19


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a tensor.

    Attributes:
        tensor: its stored name.
        worst: the largest deviation of a value as a share of what rounding allows; 0 where bytes are equal.
        probe: the same of what PEFT's layer adds to random inputs.
        lost: what rounding took of the update, as a share of its size.
        fault: what is wrong, empty if nothing is.
    """

    tensor: str
    worst: float = 0.0
    probe: float = 0.0
    lost: float = 0.0
    fault: str = ""


def check_kept(base: Slab, merged: Slab) -> Finding:
    """Not a byte may differ."""
    if found := unlike(base, merged):
        return Finding(merged.name, math.inf, fault=found)
    offset = first_difference(base, merged)
    if offset is None:
        return Finding(merged.name)
    where = place_of(merged, offset * math.prod(merged.shape) // max(1, merged.size))
    return Finding(
        merged.name, math.inf, fault=f"differs from the base at {where}, though nothing trained it"
    )


def check_whole(trained: Slab, merged: Slab) -> Finding:
    """The trained tensor, rounded once to the stored type."""
    if trained.shape != merged.shape:
        return Finding(merged.name, math.inf, fault=f"is {_spelled(merged)}, trained was {_spelled(trained)}")
    rows = max(1, BLOCK // max(1, merged.columns))
    with trained.file.open("rb", buffering=0) as a, merged.file.open("rb", buffering=0) as b:
        for first in range(0, merged.rows, rows):
            count = min(rows, merged.rows - first)
            expected = trained.values(a.fileno(), first, count).to(merged.dtype_in_torch)
            if fault := _first_unequal(expected, merged.values(b.fileno(), first, count), merged, first):
                return Finding(merged.name, math.inf, fault=f"is not what was trained at {fault}")
    return Finding(merged.name)


def check_rows(trained: Slab, numbers: Sequence[int], base: Slab, merged: Slab) -> Finding:
    """Some rows as trained, rounded once to the stored type; in all others not a bit may differ."""
    if found := unlike(base, merged):
        return Finding(merged.name, math.inf, fault=found)
    if (trained.rows, trained.columns) != (len(set(numbers)), merged.columns):
        fault = f"has {len(set(numbers))} trained rows, and the adapter holds {_spelled(trained)}"
        return Finding(merged.name, math.inf, fault=fault)
    with trained.file.open("rb", buffering=0) as file:
        values = trained.values(file.fileno()).to(merged.dtype_in_torch)
    places = {number: place for place, number in enumerate(numbers)}
    rows = max(1, BLOCK // max(1, merged.columns))
    with base.file.open("rb", buffering=0) as a, merged.file.open("rb", buffering=0) as b:
        for first in range(0, merged.rows, rows):
            count = min(rows, merged.rows - first)
            expected = base.values(a.fileno(), first, count).clone()
            for number in places.keys() & range(first, first + count):
                expected[number - first] = values[places[number]]
            if fault := _first_unequal(expected, merged.values(b.fileno(), first, count), merged, first):
                return Finding(
                    merged.name, math.inf, fault=f"is not the base with the trained rows at {fault}"
                )
    return Finding(merged.name)


def check_held(base: Slab, merged: Slab, four: FourBit) -> Finding:
    """The base through 4 bits, rounded once to the stored type."""
    if found := unlike(base, merged):
        return Finding(merged.name, math.inf, fault=found)
    rows = four.rows_together(merged.columns, max(1, BLOCK // max(1, merged.columns)))
    with base.file.open("rb", buffering=0) as a, merged.file.open("rb", buffering=0) as b:
        first = 0
        for held in four.held(base, a.fileno(), rows):
            values = merged.values(b.fileno(), first, len(held))
            if fault := _first_unequal(held.to(merged.dtype_in_torch), values, merged, first):
                return Finding(merged.name, math.inf, fault=f"is not the base in 4 bits at {fault}")
            first += len(held)
    return Finding(merged.name)


def unlike(base: Slab, merged: Slab) -> str:
    """How type or shape differ; empty if they do not."""
    if (base.dtype, base.shape) == (merged.dtype, merged.shape):
        return ""
    return f"is {_spelled(merged)}, and {_spelled(base)} in the base"


def _spelled(slab: Slab) -> str:
    return f"{slab.dtype} {list(slab.shape)}"


def _first_unequal(expected: torch.Tensor, found: torch.Tensor, merged: Slab, first: int) -> str:
    if torch.equal(expected.contiguous().view(torch.uint8), found.contiguous().view(torch.uint8)):
        return ""
    size = found.element_size()
    unequal = expected.contiguous().view(torch.uint8) != found.contiguous().view(torch.uint8)
    byte = int(unequal.flatten().nonzero()[0])
    return place_of(merged, first * merged.columns + byte // size)


def place_of(slab: Slab, number: int) -> str:
    """A value's place, as torch would index it."""
    place = []
    for extent in reversed(slab.shape):
        place.append(number % extent)
        number //= extent
    return "[" + ", ".join(str(index) for index in reversed(place)) + "]"
