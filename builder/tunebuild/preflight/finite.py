"""Whether all weights of a base are numbers: one NaN makes every loss NaN."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunebuild.errors import TunebuildError, fail
from tunebuild.grammar import counted, listed
from tunebuild.models.base_model import BaseModel
from tunebuild.models.safetensors_header import read_header
from tunebuild.store import Inputs, Progress

# By type: bytes of a number, and the bits that are all set in infinities and NaNs alone.
_EXPONENTS = {"F64": (8, 0x7FF << 52), "F32": (4, 0x7F800000), "F16": (2, 0x7C00), "BF16": (2, 0x7F80)}
_EXPONENTS |= {"F8_E5M2": (1, 0x7C), "F8_E4M3": (1, 0x7F)}  # the latter has no infinity, and one NaN
_CHUNK = 8 << 20  # bytes
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FiniteStage:
    """Passes if a base's weights are numbers: they are read once, and a record says so of these bytes.

    Attributes:
        base: the model.
    """

    base: BaseModel
    name: str = "numbers"
    version: int = 1

    def own(self) -> Inputs:
        """The weights."""
        return {"weights": {f.path: f.digest for f in self.base.files if f.path.endswith(".safetensors")}}

    def upstream(self) -> Inputs:
        """Nothing: it comes before all other stages."""
        return {}

    def run(self, work: Path, out: Path, progress: Progress) -> None:
        """Read them.

        Raises:
            TunebuildError: ``weights-not-finite``, with the tensors.
        """
        files = [self.base.directory / name for name in self.own()["weights"]]
        check_finite(files, progress)
        (out / "passed.json").write_text(json.dumps({"passed": True}) + "\n", "utf-8")


def check_finite(files: list[Path], progress: Progress) -> None:
    """Refuse weights of which a number is infinite or none at all. Holds a few buffers in memory.

    A mask may be made of infinities, so of tensors that are called so only NaNs are refused.

    Raises:
        TunebuildError: ``weights-not-finite``.
    """
    tensors = [(file, name, entry) for file in files for name, entry in sorted(read_header(file).items())]
    total = sum(file.stat().st_size for file in files)
    found, done = [], 0
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        counts = pool.map(lambda tensor: _count(*tensor), tensors)
        for (file, name, entry), count in zip(tensors, counts, strict=True):
            done += entry["data_offsets"][1] - entry["data_offsets"][0]
            progress.step(done, total, name)
            if count:
                numbers = counted(math.prod(entry["shape"]), "number")
                found.append(f"{name} in {file.name}: {count:,} of {numbers}")
    if found:
        raise _not_finite(found)


def _count(file: Path, name: str, entry: dict[str, Any]) -> int:
    """How many numbers of a tensor are infinite or none at all."""
    if entry["dtype"] not in _EXPONENTS:
        return 0
    import numpy as np

    width, exponent = _EXPONENTS[entry["dtype"]]
    kind = np.dtype(f"<u{width}")
    is_mask = "mask" in name.rpartition(".")[2]
    sign = kind.type((1 << (8 * width - 1)) - 1)
    bits, count = kind.type(exponent), 0
    for piece in _pieces(file, entry["data_offsets"]):
        numbers = np.frombuffer(piece, kind)
        if is_mask and entry["dtype"] != "F8_E4M3":
            count += int(np.count_nonzero((numbers & sign) > bits))
        else:
            count += int(np.count_nonzero((numbers & bits) == bits))
    return count


def _pieces(file: Path, offsets: tuple[int, int]) -> Iterator[bytes]:
    with file.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        stream.seek(start + offsets[0])
        left = offsets[1] - offsets[0]
        while left:
            piece = stream.read(min(left, _CHUNK))
            if not piece:  # cut short since its header was read; whoever trains on it finds that
                return
            left -= len(piece)
            yield piece


def _not_finite(found: list[str]) -> TunebuildError:
    return fail(
        "weights-not-finite",
        f"the base has weights that are infinite or not a number:{listed(found[:_SHOWN], len(found))}",
        "training would only spread them: fetch the base again, or convert it again with a wider type",
        path="model.base",
    )
