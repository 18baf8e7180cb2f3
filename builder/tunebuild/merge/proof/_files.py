"""Reads checkpoints for the proof, by the published description of safetensors: 8 bytes, JSON, tensors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tunebuild.errors import fail

Bytes = npt.NDArray[np.uint8]

#: Types that a proof computes with, and the bits of their significands.
SIGNIFICANT = {"BF16": 8, "F16": 11, "F32": 24, "F64": 53}
_TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_COMPARED = 8 << 20  # bytes of each file looked at together


@dataclass(frozen=True, slots=True)
class Slab:
    """A tensor in a file: its place in bytes, and its type as safetensors spells it."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def rows(self) -> int:
        """Extent of all dimensions but the last, as a matrix."""
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """Extent of the last dimension; 1 of a scalar."""
        return self.shape[-1] if self.shape else 1

    @property
    def dtype_in_torch(self) -> torch.dtype:
        """The type as torch calls it.

        Raises:
            TunebuildError: it is none that is added to.
        """
        if self.dtype not in _TORCH:
            raise fail("proof-type", f"{self.name} in {self.file.name} is of the type {self.dtype}")
        return _TORCH[self.dtype]

    def values(self, descriptor: int, first: int = 0, count: int | None = None) -> torch.Tensor:
        """Rows ``[count, columns]`` in the type of the file; from the start to the end if left out."""
        count = self.rows - first if count is None else count
        row = self.size // self.rows if self.rows else 0
        data = read_at(self, descriptor, first * row, count * row)
        return torch.from_numpy(data).view(self.dtype_in_torch).view(count, self.columns)


def read_at(slab: Slab, descriptor: int, offset: int, count: int) -> Bytes:
    """Some bytes of a tensor.

    Raises:
        TunebuildError: the file ends before.
    """
    data = np.empty(count, np.uint8)
    view = data.data
    while view:
        got = os.preadv(descriptor, [view], slab.start + offset)
        if not got:
            raise fail("proof-failed", f"{slab.file} ends in the middle of {slab.name}", _AGAIN)
        view, offset = view[got:], offset + got
    return data


def slabs(directory: Path) -> dict[str, Slab]:
    """The tensors of a checkpoint by name.

    Raises:
        TunebuildError: a file is missing, a header does not fill its file, a tensor is there twice, or the
            index says otherwise than the files.
    """
    index = directory / _INDEX
    placed: dict[str, str] = {}
    if index.is_file():
        placed = json.loads(index.read_text("utf-8"))["weight_map"]
    files = sorted(set(placed.values())) or [_SINGLE]
    found: dict[str, Slab] = {}
    for name in files:
        for slab in slabs_of(directory / name):
            if slab.name in found:
                raise _broken(directory, f"{slab.name} is in {found[slab.name].file.name} and in {name}")
            found[slab.name] = slab
    if placed and (unlike := sorted({n: s.file.name for n, s in found.items()}.items() ^ placed.items())):
        raise _broken(directory, f"the index and the files disagree about {unlike[0][0]}")
    return found


def slabs_of(file: Path) -> Iterator[Slab]:
    """The tensors of one file."""
    if not file.is_file():
        raise _broken(file.parent, f"{file.name} is missing")
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(length))
    end = 8 + length
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = (8 + length + offset for offset in entry["data_offsets"])
        if first != end:
            raise _broken(file.parent, f"{file.name} has a gap before {name}")
        end = last
        yield Slab(file, name, entry["dtype"], tuple(entry["shape"]), first, last - first)
    if end != file.stat().st_size:
        raise _broken(file.parent, f"{file.name} is longer or shorter than its header says")


def first_difference(one: Slab, other: Slab) -> int | None:
    """The first byte in which two tensors of one size differ; ``None`` if they are equal."""
    with one.file.open("rb", buffering=0) as a, other.file.open("rb", buffering=0) as b:
        for offset in range(0, one.size, _COMPARED):
            count = min(_COMPARED, one.size - offset)
            read = partial(read_at, offset=offset, count=count)
            left, right = read(one, a.fileno()), read(other, b.fileno())
            if not _same(left, right):
                return offset + int(np.flatnonzero(left != right)[0])
    return None


def _same(left: Bytes, right: Bytes) -> bool:
    """Equality eight bytes at a time, which is twice as fast as one at a time."""
    whole = len(left) & ~7
    return bool(
        np.array_equal(left[:whole].view(np.uint64), right[:whole].view(np.uint64))
        and np.array_equal(left[whole:], right[whole:])
    )


_AGAIN = "something changed or removed it; 'tunebuild cache verify --remove' forgets what is damaged"


def _broken(directory: Path, what: str) -> Exception:
    return fail("proof-failed", f"{directory}: {what}", _AGAIN)
