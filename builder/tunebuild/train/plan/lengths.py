"""How long the tokenized rows are, read without torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa


def read_lengths(path: Path) -> np.ndarray:
    """Tokens of each row of an Arrow stream, ``[rows]`` of int64; the rows themselves are not read."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as batches:
        return lengths_of(batches)


def lengths_of(batches: Iterable[pa.RecordBatch]) -> np.ndarray:
    """Tokens of each row, ``[rows]`` of int64."""
    lengths = [np.diff(batch["input_ids"].offsets.to_numpy()) for batch in batches]
    return np.concatenate(lengths).astype(np.int64) if lengths else np.zeros(0, np.int64)
