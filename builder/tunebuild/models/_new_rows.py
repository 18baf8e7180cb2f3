"""Copies a file of weights, in which the tensors that have a row for each token get more rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tunebuild.models.safetensors_header import read_header

_COPIED = 8 << 20  # bytes at once

Header = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows for new tokens.

    Attributes:
        tensors: names of those that have a row for each token.
        count: rows that they shall have.
        ids: the rows that are new; each is the mean of the old ones.
        before: how many ids there were; rows behind them belong to no token.
    """

    tensors: frozenset[str]
    count: int
    ids: tuple[int, ...]
    before: int


def write_with_rows(source: Path, target: Path, new: NewRows) -> None:
    """Write a file of weights with the new rows."""
    header = read_header(source)
    with source.open("rb") as stream, target.open("wb") as sink:
        start = 8 + int.from_bytes(stream.read(8), "little")
        sink.write(_head(_grown(header, new)))
        for name in _in_order(header):
            entry = header[name]
            first, last = entry["data_offsets"]
            begun = sink.tell()
            _copy(stream, start + first, last - first, sink)
            if name in new.tensors:
                _fill(sink, begun, source, start, entry, new)


def write_outline(source: Path, target: Path, new: NewRows) -> None:
    """Write the header of what :func:`write_with_rows` would write, and as many zeros, as a hole."""
    grown = _grown(read_header(source), new)
    head = _head(grown)
    with target.open("wb") as sink:
        sink.write(head)
        sink.truncate(len(head) + max((entry["data_offsets"][1] for entry in grown.values()), default=0))


def _in_order(header: Header) -> list[str]:
    return sorted(header, key=lambda name: header[name]["data_offsets"])


def _grown(header: Header, new: NewRows) -> Header:
    """The entries of tensors with the new rows, one behind the other."""
    entries: Header = {}
    end = 0
    for name in _in_order(header):
        entry, (first, last) = header[name], header[name]["data_offsets"]
        shape, size = list(entry["shape"]), last - first
        if name in new.tensors:
            size = size // shape[0] * new.count
            shape[0] = new.count
        entries[name] = {"dtype": entry["dtype"], "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return entries


def _head(entries: Header) -> bytes:
    """The first bytes of a safetensors file, up to its tensors."""
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _copy(stream: BinaryIO, place: int, size: int, sink: BinaryIO) -> None:
    stream.seek(place)
    while size:
        size -= sink.write(stream.read(min(_COPIED, size)))


def _fill(sink: BinaryIO, begun: int, source: Path, start: int, entry: dict[str, Any], new: NewRows) -> None:
    """Write rows behind a tensor that was copied to ``begun``, and over those of the new ids."""
    from tunebuild.models.rows import Rows, mean_row  # numpy, for which other builds should not wait

    (first, last), old = entry["data_offsets"], entry["shape"][0]
    row = mean_row(Rows(source, start + first, entry["dtype"], old, (last - first) // old), new.before)
    sink.write(row * (new.count - old))
    for number in new.ids:
        sink.seek(begun + number * len(row))
        sink.write(row)
    sink.seek(begun + new.count * len(row))
