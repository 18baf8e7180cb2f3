"""Reads and writes checkpoints by ranges of bytes: nothing is mapped, so nothing but buffers is in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunebuild.errors import fail
from tunebuild.models.safetensors_header import read_header

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_FLOATING = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DTYPES = {
    **_FLOATING,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_COPIED = 8 << 20  # bytes on their way from file to file


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a checkpoint: file, name, dtype (safetensors' spelling), shape, place and size in bytes."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch calls it.

        Raises:
            TunebuildError: torch has no such type.
        """
        if self.dtype not in _DTYPES:
            raise fail("weights-dtype", f"{self.name} is of the type {self.dtype}", path="model.base")
        return _DTYPES[self.dtype]

    def read(self) -> torch.Tensor:
        """The tensor's own copy."""
        with self.file.open("rb", buffering=0) as source:
            return self.read_rows(source.fileno(), 0, self.shape[0] if self.shape else 1).view(self.shape)

    def read_rows(self, source: int, first: int, count: int) -> torch.Tensor:
        """Some rows (of the first dimension) from the open file.

        Raises:
            TunebuildError: the file got shorter since its header was read, or torch has no such type.
        """
        rows = self.shape[0] if self.shape else 1
        row = self.size // rows if rows else 0
        buffer = torch.empty(count * row, dtype=torch.uint8)
        view, done = buffer.numpy().data, 0
        while done < len(view):  # one call reads at most 2 GiB
            got = os.preadv(source, [view[done:]], self.start + first * row + done)
            if not got:
                raise _cut_short(self.file)
            done += got
        return buffer.view(self.torch_dtype).view(count, *self.shape[1:])


def list_tensors(directory: Path, single: str = _SINGLE) -> list[StoredTensor]:
    """All tensors of a checkpoint in the order of its files: those of its index, or one of this name.

    Raises:
        TunebuildError: no weights, a shard of the index is missing, or a header is damaged.
    """
    index = directory / _INDEX
    if index.is_file():
        weight_map: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        files = [directory / name for name in sorted(set(weight_map.values()))]
    else:
        files = [directory / single]
    tensors: list[StoredTensor] = []
    for file in files:
        if not file.is_file():
            raise fail("shard-missing", f"{directory} lacks {file.name}", path="model.base")
        tensors.extend(tensors_of(file))
    return tensors


def tensors_of(file: Path) -> Iterator[StoredTensor]:
    """The tensors of one file, in its order."""
    header = read_header(file)
    with file.open("rb") as stream:
        first = 8 + int.from_bytes(stream.read(8), "little")
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        yield StoredTensor(file, name, entry["dtype"], tuple(entry["shape"]), first + start, end - start)


def plan_shards(tensors: Sequence[StoredTensor], limit: int) -> list[list[StoredTensor]]:
    """Group tensors, in order, into shards of at most ``limit`` bytes (a larger tensor gets its own)."""
    shards: list[list[StoredTensor]] = []
    size = 0
    for tensor in tensors:
        if not shards or size + tensor.size > limit:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.size
    return shards


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor of a new shard begins: file, and offset in bytes."""

    file: Path
    start: int


def make_shard(path: Path, tensors: Sequence[StoredTensor]) -> list[Place]:
    """Write a shard's header and leave room for its tensors, which can then be written in any order."""
    header = _header(tensors)
    with path.open("wb") as sink:
        sink.write(header)
        sink.truncate(len(header) + sum(t.size for t in tensors))
    places, start = [], len(header)
    for tensor in tensors:
        places.append(Place(path, start))
        start += tensor.size
    return places


def copy_tensor(tensor: StoredTensor, place: Place) -> None:
    """Write a tensor as it is, whatever its dtype.

    Raises:
        TunebuildError: its file got shorter since the header was read.
    """
    view = memoryview(bytearray(min(_COPIED, tensor.size)))
    with tensor.file.open("rb", buffering=0) as source, place.file.open("r+b", buffering=0) as sink:
        done = 0
        while done < tensor.size:
            got = os.preadv(source.fileno(), [view[: tensor.size - done]], tensor.start + done)
            if not got:
                raise _cut_short(tensor.file)
            write_at(sink.fileno(), view[:got], place.start + done)
            done += got


def write_at(sink: int, data: memoryview, offset: int) -> None:
    """Write all of it."""
    done = 0
    while done < len(data):
        done += os.pwrite(sink, data[done:], offset + done)


def write_index(directory: Path, shards: Mapping[str, Sequence[StoredTensor]]) -> None:
    """Write the index of a checkpoint from its shards by file name."""
    index = {
        "metadata": {"total_size": sum(t.size for shard in shards.values() for t in shard)},
        "weight_map": {t.name: name for name, shard in shards.items() for t in shard},
    }
    (directory / _INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")


def is_floating(tensor: StoredTensor) -> bool:
    """Whether the merge can add to it."""
    return tensor.dtype in _FLOATING


def _header(tensors: Sequence[StoredTensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start on 8 bytes, as safetensors' own writer does
    return len(text).to_bytes(8, "little") + text


def _cut_short(file: Path) -> Exception:
    return fail("weights-damaged", f"{file.name} was cut short", path="model.base")
