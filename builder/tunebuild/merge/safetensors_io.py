"""Reads tensors of a sharded checkpoint one at a time and writes shards without holding them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tunebuild.errors import fail
from tunebuild.lock.weights_file import read_header

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a checkpoint: file, name, dtype (safetensors' spelling), shape, place and size in bytes."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def read(self) -> torch.Tensor:
        """The tensor's own copy. The file is opened anew so that its mapped pages can go again."""
        with safe_open(self.file, framework="pt") as file:
            return file.get_tensor(self.name)


def list_tensors(directory: Path) -> list[StoredTensor]:
    """All tensors of a checkpoint in the order of its files.

    Raises:
        TunebuildError: no weights, a shard of the index is missing, or a header is damaged.
    """
    index = directory / _INDEX
    if index.is_file():
        weight_map: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        files = [directory / name for name in sorted(set(weight_map.values()))]
    else:
        files = [directory / _SINGLE]
    tensors: list[StoredTensor] = []
    for file in files:
        if not file.is_file():
            raise fail("shard-missing", f"the base model lacks {file.name}", path="model.base")
        tensors.extend(_tensors_of(file))
    return tensors


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


def write_shard(
    path: Path, tensors: Sequence[StoredTensor], make: Callable[[StoredTensor], torch.Tensor]
) -> None:
    """Write one shard; ``make`` gives each tensor in turn, in its stored dtype and shape."""
    with path.open("wb") as sink:
        sink.write(_header(tensors))
        for tensor in tensors:
            made = make(tensor).contiguous()
            assert tuple(made.shape) == tensor.shape, tensor.name
            data = made.flatten().view(torch.uint8).numpy()
            assert data.nbytes == tensor.size, tensor.name
            sink.write(data.data)


def copy_shard(path: Path, tensors: Sequence[StoredTensor]) -> None:
    """Write one shard of tensors as they are, whatever their dtype; the kernel moves the bytes.

    Raises:
        TunebuildError: a file got shorter since its header was read.
    """
    with path.open("wb", buffering=0) as sink:
        sink.write(_header(tensors))
        for tensor in tensors:
            with tensor.file.open("rb", buffering=0) as source:
                done = 0
                while done < tensor.size:
                    at, left = tensor.start + done, tensor.size - done
                    sent = os.sendfile(sink.fileno(), source.fileno(), at, left)
                    if not sent:
                        raise fail("weights-damaged", f"{tensor.file.name} was cut short", path="model.base")
                    done += sent


def write_index(directory: Path, shards: Mapping[str, Sequence[StoredTensor]]) -> None:
    """Write the index of a checkpoint from its shards by file name."""
    index = {
        "metadata": {"total_size": sum(t.size for shard in shards.values() for t in shard)},
        "weight_map": {t.name: name for name, shard in shards.items() for t in shard},
    }
    (directory / _INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")


def is_floating(tensor: StoredTensor) -> bool:
    """Whether the merge can add to it."""
    return tensor.dtype in _DTYPES


def _tensors_of(file: Path) -> Iterator[StoredTensor]:
    header = read_header(file)
    with file.open("rb") as stream:
        first = 8 + int.from_bytes(stream.read(8), "little")
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        yield StoredTensor(file, name, entry["dtype"], tuple(entry["shape"]), first + start, end - start)


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
