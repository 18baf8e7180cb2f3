"""Compares one written tensor with what it has to be."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tunebuild.merge.proof._files import SIGNIFICANT, Slab, first_difference
from tunebuild.merge.proof._kernels import compare_rows
from tunebuild.merge.proof._nf4 import FourBit
from tunebuild.merge.proof._peft import Low, Module

#: Values worked on together; a thread holds a few such blocks.
_BLOCK = 1 << 19

# A sum of errors with independent random signs exceeds so many times the root of the sum of their bounds'
# squares in fewer than one of 10^13 cases (Hoeffding's inequality).
_SIGMAS = 8.0

_U = 2.0**-24  # relative error of one operation in float32
_EXACT = 1e-9  # relative, between two ways of computing the same in float64


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
    if found := _unlike(base, merged):
        return Finding(merged.name, math.inf, fault=found)
    offset = first_difference(base, merged)
    if offset is None:
        return Finding(merged.name)
    where = _place(merged, offset * math.prod(merged.shape) // max(1, merged.size))
    return Finding(
        merged.name, math.inf, fault=f"differs from the base at {where}, though nothing trained it"
    )


def check_whole(trained: Slab, merged: Slab) -> Finding:
    """The trained tensor, rounded once to the stored type."""
    if trained.shape != merged.shape:
        return Finding(merged.name, math.inf, fault=f"is {_spelled(merged)}, trained was {_spelled(trained)}")
    rows = max(1, _BLOCK // max(1, merged.columns))
    with trained.file.open("rb", buffering=0) as a, merged.file.open("rb", buffering=0) as b:
        for first in range(0, merged.rows, rows):
            count = min(rows, merged.rows - first)
            expected = trained.values(a.fileno(), first, count).to(merged.dtype_in_torch)
            if fault := _first_unequal(expected, merged.values(b.fileno(), first, count), merged, first):
                return Finding(merged.name, math.inf, fault=f"is not what was trained at {fault}")
    return Finding(merged.name)


def check_rows(trained: Slab, numbers: Sequence[int], base: Slab, merged: Slab) -> Finding:
    """Some rows as trained, rounded once to the stored type; in all others not a bit may differ."""
    if found := _unlike(base, merged):
        return Finding(merged.name, math.inf, fault=found)
    if (trained.rows, trained.columns) != (len(set(numbers)), merged.columns):
        fault = f"has {len(set(numbers))} trained rows, and the adapter holds {_spelled(trained)}"
        return Finding(merged.name, math.inf, fault=fault)
    with trained.file.open("rb", buffering=0) as file:
        values = trained.values(file.fileno()).to(merged.dtype_in_torch)
    places = {number: place for place, number in enumerate(numbers)}
    rows = max(1, _BLOCK // max(1, merged.columns))
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
    if found := _unlike(base, merged):
        return Finding(merged.name, math.inf, fault=found)
    rows = four.rows_together(merged.columns, max(1, _BLOCK // max(1, merged.columns)))
    with base.file.open("rb", buffering=0) as a, merged.file.open("rb", buffering=0) as b:
        first = 0
        for held in four.held(base, a.fileno(), rows):
            values = merged.values(b.fileno(), first, len(held))
            if fault := _first_unequal(held.to(merged.dtype_in_torch), values, merged, first):
                return Finding(merged.name, math.inf, fault=f"is not the base in 4 bits at {fault}")
            first += len(held)
    return Finding(merged.name)


@dataclass(frozen=True, slots=True)
class Updated:
    """A weight that a low-rank update was added to.

    Attributes:
        base, merged: before and after.
        low: the update.
        module: PEFT's layer, for what it adds to inputs; ``None`` where it is one of many experts.
        four: if training held it in 4 bits.
    """

    base: Slab
    merged: Slab
    low: Low
    module: Module | None
    four: FourBit | None

    def check(self) -> Finding:
        """Value by value, and by random inputs."""
        merged, low = self.merged, self.low
        if fault := _unlike(self.base, merged):
            return Finding(merged.name, math.inf, fault=fault)
        if (len(low.left), low.right.shape[1]) != (merged.rows, merged.columns):
            fits = f"{len(low.left)} x {low.right.shape[1]}"
            return Finding(merged.name, math.inf, fault=f"has another shape than its update, {fits}")
        generator = torch.Generator().manual_seed(zlib.crc32(merged.name.encode()))
        inputs = merged.rows if low.inputs_first else merged.columns
        signs = torch.randint(0, 2, (2, inputs), generator=generator).double().mul_(2).sub_(1)
        sums = _Sums(signs, self)
        first = 0
        for base, values in self._blocks():
            sums.add(first, base, values)
            first += len(base)
        lost = math.sqrt(sums.error / sums.size) if sums.size else 0.0
        if not sums.worst <= 1:
            where = _place(merged, sums.where)
            return Finding(merged.name, sums.worst, lost=lost, fault=f"is not base + update at {where}")
        probe = sums.probe()
        fault = "" if probe <= 1 else "answers random inputs otherwise than PEFT's layer does"
        return Finding(merged.name, sums.worst, probe, lost, fault)

    def gains(self) -> torch.Tensor | None:
        """By how much DoRA multiplies each column, where columns are outputs; else ``None``."""
        low = self.low
        if low.magnitude is None or not low.inputs_first:
            return None
        squares, first = torch.zeros(self.merged.columns, dtype=torch.float64), 0
        for base, _ in self._blocks():
            rows = slice(first, first + len(base))
            squares += (base.double() + low.scale * (low.left[rows] @ low.right)).square().sum(0)
            first += len(base)
        return low.magnitude / squares.sqrt()

    def _blocks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Rows of the base as it was trained, and of the written weight as they are in the file."""
        rows = max(1, _BLOCK // max(1, self.merged.columns))
        with self.base.file.open("rb", buffering=0) as a, self.merged.file.open("rb", buffering=0) as b:
            if self.four:
                rows = self.four.rows_together(self.merged.columns, rows)
                first = 0
                for held in self.four.held(self.base, a.fileno(), rows):
                    yield held, self.merged.values(b.fileno(), first, len(held))
                    first += len(held)
                return
            for first in range(0, self.merged.rows, rows):
                count = min(rows, self.merged.rows - first)
                yield self.base.values(a.fileno(), first, count), self.merged.values(b.fileno(), first, count)


class _Sums:
    """What is summed up over the rows of an updated weight."""

    def __init__(self, signs: torch.Tensor, weight: Updated) -> None:
        low, merged = weight.low, weight.merged
        self.worst, self.where, self.error, self.size = 0.0, 0, 0.0, 0.0
        self._weight, self._signs = weight, signs
        outputs = merged.columns if low.inputs_first else merged.rows
        self._products = torch.zeros(outputs, 2, dtype=torch.float64)
        self._squares = torch.zeros(outputs, dtype=torch.float64)
        self._noise = torch.zeros(outputs, dtype=torch.float64)
        self._told = torch.zeros(outputs, 2, dtype=torch.float64)
        bits = SIGNIFICANT[merged.dtype]
        self._double = bits > SIGNIFICANT["F16"]
        self._kind = torch.float64 if self._double else torch.float32
        # The merge computes in float32. So does this proof where that is finer than what is stored.
        rank, times = low.right.shape[0], 1 if self._double else 2
        self._left, self._right = low.left.to(self._kind), (low.right * low.scale).to(self._kind)
        self._each = times * (rank + 3) * _U
        self._lengths = low.left.norm(dim=1), low.right.norm(dim=0) * abs(low.scale)
        self._half_ulp = 2.0 ** -min(bits, 24)
        self._loose = 0.0 if self._double else 6 * _U
        self._columns: torch.Tensor | None = weight.gains()
        if low.magnitude is not None:
            along = merged.rows if low.inputs_first else merged.columns
            self._loose += 4 * (8 + math.sqrt(along)) * _U
        self._smallest = torch.finfo(merged.dtype_in_torch).tiny if merged.dtype != "F64" else 1e-38

    def add(self, first: int, base: torch.Tensor, values: torch.Tensor) -> None:
        """Take in some rows."""
        low, rows = self._weight.low, slice(first, first + len(base))
        before, after = base.to(self._kind), values.to(self._kind)
        delta = self._left[rows] @ self._right
        row_gains, column_gains = torch.ones(len(base)), torch.ones(base.shape[1])
        if low.magnitude is not None and self._columns is None:
            lengths = (before.double() + delta.double()).norm(dim=1)
            row_gains = low.magnitude[rows] / lengths
        elif self._columns is not None:
            column_gains = self._columns
        signs = torch.ones(2, base.shape[1]) if low.inputs_first else self._signs
        left = self._lengths[0][rows] * self._each * row_gains.double()
        right = self._lengths[1] * column_gains.double()
        outs = [np.empty(len(base), np.float32), np.empty((len(base), 2)), *np.empty((3, len(base)))]
        kind = self._kind
        compare_rows(
            before.numpy(),
            delta.numpy(),
            row_gains.to(kind).numpy(),
            column_gains.to(kind).numpy(),
            after.numpy(),
            values.float().view(torch.int32).numpy(),
            np.float32(self._half_ulp + self._loose),
            np.float32(self._smallest),
            left.to(kind).numpy(),
            right.to(kind).numpy(),
            signs.to(kind).numpy(),
            *outs,
        )
        worst, products, squares, errors, sizes = (torch.from_numpy(out) for out in outs)
        self._note_worst(first, worst, before, delta, row_gains, column_gains, after)
        self.error += float(errors.sum())
        self.size += float(sizes.sum())
        reduction = base.shape[1] / 16 + 1 if not self._double else 0
        if low.inputs_first:
            added = after - before
            self._products += (self._signs[:, rows].to(kind) @ added).T
            allowed = after.abs().clamp(min=self._smallest) * (self._half_ulp + self._loose)
            allowed += left.to(kind)[:, None] * right.to(kind)
            self._squares += allowed.double().square().sum(0)
            self._noise += added.abs().double().sum(0) * len(base) * _U
        else:
            self._products[rows], self._squares[rows] = products, squares
            self._noise[rows] = reduction * left * float(right.sum())
            if low.magnitude is not None and self._weight.module:
                told = self._weight.module.added(self._signs, base.double(), rows)
                self._told[rows] = told.T

    def _note_worst(self, first: int, worst: torch.Tensor, *rows: torch.Tensor) -> None:
        value = float(worst.max())  # NaN if one is
        if value <= self.worst or not self.worst <= 1:
            return
        self.worst = value
        if not value <= 1:
            row = int(torch.nan_to_num(worst, nan=math.inf).argmax())
            before, delta, row_gains, column_gains, after = rows
            expected = (before[row] + delta[row]) * row_gains[row] * column_gains
            off = torch.nan_to_num((after[row] - expected).abs(), nan=math.inf)
            scale = expected.abs().clamp(min=self._smallest)
            self.where = (first + row) * len(off) + int((off / scale).argmax())

    def probe(self) -> float:
        """How far PEFT's layer is from what was added, as a share of what rounding allows."""
        weight, low, module = self._weight, self._weight.low, self._weight.module
        if module is None:
            return 0.0
        if module.kind == "embedding":
            return self._probe_embedding(module)
        if low.magnitude is None:
            self._told = module.added(self._signs).T
        elif low.inputs_first:
            whole = torch.cat([base.double() for base, _ in weight._blocks()])
            self._told = module.added(self._signs, whole).T
        allowed = _SIGMAS * self._squares.sqrt() + self._noise + self._told.abs().amax(1) * _EXACT
        off = (self._products - self._told).abs().amax(1)
        return float((off / allowed.clamp(min=1e-300)).max())

    def _probe_embedding(self, module: Module) -> float:
        weight, low = self._weight, self._weight.low
        ids = torch.linspace(0, weight.merged.rows - 1, min(64, weight.merged.rows)).long()
        expected, whole = low.scale * (low.left[ids] @ low.right), None
        if self._columns is not None:
            whole = torch.cat([base.double() for base, _ in weight._blocks()])
            expected = (whole[ids] + expected) * self._columns - whole[ids]
        off = (module.added(ids, whole) - expected).abs().max()
        return float(off / (expected.abs().max() * 1e-6 + 1e-300))


def _unlike(base: Slab, merged: Slab) -> str:
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
    return _place(merged, first * merged.columns + byte // size)


def _place(slab: Slab, number: int) -> str:
    """A value's place, as torch would index it."""
    place = []
    for extent in reversed(slab.shape):
        place.append(number % extent)
        number //= extent
    return "[" + ", ".join(str(index) for index in reversed(place)) + "]"
