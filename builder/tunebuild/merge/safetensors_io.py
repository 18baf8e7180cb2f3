"""Reads tensors of a sharded checkpoint one at a time and writes shards without holding them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
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
    """A tensor in a checkpoint: its file, name, dtype (safetensors' spelling), shape and size in bytes."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
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


def shard_names(count: int) -> list[str]:
    """File names as transformers expects them."""
    if count == 1:
        return [_SINGLE]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


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


def write_index(directory: Path, shards: Sequence[Sequence[StoredTensor]], names: Sequence[str]) -> None:
    """Write the index of a sharded checkpoint; a single file has none."""
    if len(shards) == 1:
        return
    index = {
        "metadata": {"total_size": sum(t.size for shard in shards for t in shard)},
        "weight_map": {t.name: name for shard, name in zip(shards, names, strict=True) for t in shard},
    }
    (directory / _INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")


def is_floating(tensor: StoredTensor) -> bool:
    """Whether the merge can add to it."""
    return tensor.dtype in _DTYPES


def _tensors_of(file: Path) -> Iterator[StoredTensor]:
    header = read_header(file)
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        yield StoredTensor(file, name, entry["dtype"], tuple(entry["shape"]), end - start)


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
