"""Compares a weight that a low-rank update was added to with base and update, within rounding."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tunebuild.merge.proof._check import BLOCK, Finding, place_of, unlike
from tunebuild.merge.proof._files import SIGNIFICANT, Slab
from tunebuild.merge.proof._kernels import compare_rows
from tunebuild.merge.proof._nf4 import FourBit
from tunebuild.merge.proof._peft import Low, Module

# A sum of errors with independent random signs exceeds so many times the root of the sum of their bounds'
# squares in fewer than one of 10^13 cases (Hoeffding's inequality).
_SIGMAS = 8.0

_U = 2.0**-24  # relative error of one operation in float32
_EXACT = 1e-9  # relative, between two ways of computing the same in float64


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
        if fault := unlike(self.base, merged):
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
            where = place_of(merged, sums.where)
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
        rows = max(1, BLOCK // max(1, self.merged.columns))
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
