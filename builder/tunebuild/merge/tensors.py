"""Merges one tensor, a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tunebuild.errors import fail
from tunebuild.merge.adapter_file import Adapter, TrainedRows
from tunebuild.merge.low_rank import LowRankUpdate
from tunebuild.merge.nf4 import NF4RoundTrip
from tunebuild.merge.safetensors_io import Place, StoredTensor, copy_tensor, write_at

# Shards by what is in them. Names hold no total, so that what adapters of one base share has one name, too;
# in their order the image's layers begin with what is shared.
AS_STORED, ROUND_TRIPPED, MERGED = "model-base", "model-dequantized", "model-merged"
KINDS = (AS_STORED, ROUND_TRIPPED, MERGED)

# Values worked on together: 4 MB in 32 bits, of which each thread holds a few. Threads take turns between
# operations, so smaller blocks keep more of them waiting.
_BLOCK = 1 << 20

#: Number of the first row of a block, and the rows before and after the merge.
_Block = tuple[int, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class TensorMerger:
    """Knows what becomes of each tensor of the base. Safe for several threads."""

    adapter: Adapter
    round_trip: NF4RoundTrip | None

    def kind(self, tensor: StoredTensor) -> str:
        """Which shards it belongs to."""
        if any(tensor.name in changes for changes in self.adapter.changes):
            return MERGED
        return ROUND_TRIPPED if self.round_trip and tensor.name in self.round_trip.weights else AS_STORED

    def write(self, tensor: StoredTensor, place: Place) -> float | None:
        """Write the merged tensor in its stored dtype; how far the adapter moved it, if it did.

        That is the size of the difference as a share of the new size: 1 where all was zero before.

        Raises:
            TunebuildError: the adapter does not fit, or a value is not finite or too large for the dtype.
        """
        if self.kind(tensor) == AS_STORED:
            copy_tensor(tensor, place)
            return None
        update = self.adapter.updates.get(tensor.name)
        replacement = self.adapter.replacements.get(tensor.name)
        rows = self.adapter.rows.get(tensor.name)
        self._check_shape(tensor, update, replacement, rows)
        row = tensor.size // max(1, *tensor.shape[:1])
        moved, size, dtype = 0.0, 0.0, tensor.torch_dtype
        blocks = (
            self._replaced(tensor, replacement)
            if replacement is not None
            else self._merged(tensor, update)
            if rows is None
            else self._with_rows(tensor, rows)
        )
        with place.file.open("r+b", buffering=0) as sink:
            for first, old, new in blocks:
                written = new.to(dtype)
                length = _squared(new)
                # A finite length that 16 bits can hold bounds every value; only then need none be looked at.
                if not length < torch.finfo(dtype).max and not bool(torch.isfinite(written).all()):
                    raise fail(
                        "not-finite",
                        f"{tensor.name} holds a value that is not a number after the merge, or too large for "
                        f"{tensor.dtype}",
                    )
                size += length
                if update is None or update.magnitude is not None:
                    moved += _squared(new.float() - old.float())
                data = written.contiguous().flatten().view(torch.uint8).numpy().data
                write_at(sink.fileno(), data, place.start + first * row)
        if update is None and replacement is None and rows is None:
            return None
        if update is not None and update.magnitude is None:
            moved = update.size**2
        return math.sqrt(moved / size) if size else 0.0

    def _check_shape(
        self,
        tensor: StoredTensor,
        update: LowRankUpdate | None,
        replacement: StoredTensor | None,
        rows: TrainedRows | None,
    ) -> None:
        fits = all(change is None or change.fits(tensor.shape) for change in (update, rows))
        if not fits or (replacement is not None and replacement.shape != tensor.shape):
            raise fail("adapter-shape", f"the adapter does not fit {tensor.name}")

    def _merged(self, tensor: StoredTensor, update: LowRankUpdate | None) -> Iterator[_Block]:
        """Rows of a matrix as training saw them, and with the update."""
        rows, columns = tensor.shape
        count = max(1, _BLOCK // max(1, columns))
        quantized = None
        if self.round_trip and tensor.name in self.round_trip.weights:
            quantized = self.round_trip.begin(tensor, count)
            count = quantized.rows
        buffer = torch.empty(min(count, rows), columns) if update else None
        with tensor.file.open("rb", buffering=0) as source:
            for first in range(0, rows, count):
                there = min(count, rows - first)
                old = tensor.read_rows(source.fileno(), first, there)
                if quantized is not None:
                    old = quantized.piece(first, old)
                new = update.add_to(old, first, buffer[:there]) if update and buffer is not None else old
                yield first, old, new

    def _with_rows(self, tensor: StoredTensor, rows: TrainedRows) -> Iterator[_Block]:
        """Rows of a matrix before and after, of which some were trained."""
        count = max(1, _BLOCK // max(1, tensor.shape[1]))
        with tensor.file.open("rb", buffering=0) as source:
            for first in range(0, tensor.shape[0], count):
                there = min(count, tensor.shape[0] - first)
                old = tensor.read_rows(source.fileno(), first, there)
                yield first, old, rows.put(old, first)

    def _replaced(self, tensor: StoredTensor, replacement: StoredTensor) -> Iterator[_Block]:
        """Rows of a tensor that was trained whole, before and after."""
        rows = math.prod(tensor.shape[:1])
        count = max(1, _BLOCK // max(1, math.prod(tensor.shape[1:])))
        with tensor.file.open("rb", buffering=0) as old, replacement.file.open("rb", buffering=0) as new:
            for first in range(0, rows, count):
                there = min(count, rows - first)
                yield (
                    first,
                    tensor.read_rows(old.fileno(), first, there),
                    replacement.read_rows(new.fileno(), first, there),
                )


def _squared(values: torch.Tensor) -> float:
    flat = values.float().flatten()
    return float(torch.dot(flat, flat))
