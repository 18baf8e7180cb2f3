"""Reads the tokenized rows, refuses what cannot be trained on, and makes micro-batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from torch import Tensor

from tunebuild.errors import fail
from tunebuild.prompt.example import IGNORED
from tunebuild.train.model.attention import pack_tensors
from tunebuild.train.plan.batches import Index

#: What a micro-batch hands to the model.
Inputs = dict[str, Any]


def load_rows(path: Path) -> Dataset:
    """The rows of an Arrow file, memory-mapped.

    Raises:
        TunebuildError: a row carries no loss. Trained on, it gives a loss of 0 and no gradient at all.
    """
    rows = Dataset.from_file(str(path))
    number = 0
    for batch in rows.data.table.to_batches():
        labels = batch["labels"]
        offsets = labels.offsets.to_numpy() - labels.offsets[0].as_py()
        carried = np.concatenate(([0], np.cumsum(labels.flatten().to_numpy() != IGNORED)))
        nothing = np.flatnonzero(carried[offsets[1:]] == carried[offsets[:-1]])
        if len(nothing):
            message = f"{path.name} row {number + nothing[0] + 1} has no supervised token"
            raise fail("no-target", message, path="data.train")
        number += len(labels)
    return rows


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Rows by number, as ``input_ids`` and ``labels`` of int64; ``~number`` is a row without its loss.

    Taken from the mapped file as they are: through the formatters of ``datasets`` a step's rows would take so
    long that a card waits for them.
    """

    def __init__(self, rows: Dataset) -> None:
        batches = rows.data.table.to_batches()
        self._firsts = np.cumsum([0, *map(len, batches)])
        self._batches = [(_values(b["input_ids"]), _values(b["labels"])) for b in batches]

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, index: Index) -> dict[str, Tensor]:
        number = max(index, ~index)
        at = int(np.searchsorted(self._firsts, number, side="right")) - 1
        row = number - self._firsts[at]
        ids, labels = (
            torch.from_numpy(values[offsets[row] : offsets[row + 1]].astype(np.int64))
            for values, offsets in self._batches[at]
        )
        return {"input_ids": ids, "labels": labels if index >= 0 else torch.full_like(labels, IGNORED)}


def _values(lists: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """All values of a column, and where each row's begin; both without a copy."""
    return lists.values.to_numpy(), lists.offsets.to_numpy()


def pack(rows: Sequence[dict[str, Tensor]]) -> Inputs:
    """Rows behind one another, ``[1, tokens]``.

    The first label of each row is ignored: what stands before it is another row.
    """
    labels = [row["labels"].clone() for row in rows]
    for one in labels:
        one[0] = IGNORED
    return {**pack_tensors([row["input_ids"] for row in rows]), "labels": torch.cat(labels)[None]}


class PadRight:
    """Rows side by side, ``[rows, longest]``, padded on the right.

    Labels come from the data, so padding with the end token hides nothing.
    """

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Tensor]]) -> Inputs:
        """``input_ids``, ``attention_mask`` and ``labels``."""

        def padded(tensors: list[Tensor], filler: int) -> Tensor:
            return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=filler)

        return {
            "input_ids": padded([row["input_ids"] for row in rows], self._pad_id),
            "attention_mask": padded([torch.ones_like(row["input_ids"]) for row in rows], 0),
            "labels": padded([row["labels"] for row in rows], IGNORED),
        }


def halves(inputs: Inputs) -> tuple[Inputs, Inputs] | None:
    """A micro-batch as two of about half the tokens; ``None`` if it holds only one row."""
    if "cu_seq_lens_q" in inputs:
        starts = inputs["cu_seq_lens_q"].tolist()
        if len(starts) < 3:
            return None
        # The inner boundary nearest to the middle.
        cut = min(range(1, len(starts) - 1), key=lambda number: abs(2 * starts[number] - starts[-1]))
        return _documents(inputs, starts, 0, cut), _documents(inputs, starts, cut, len(starts) - 1)
    rows = len(inputs["input_ids"])
    if rows < 2:
        return None
    half = rows // 2
    return {n: t[:half] for n, t in inputs.items()}, {n: t[half:] for n, t in inputs.items()}


def _documents(inputs: Inputs, starts: list[int], first: int, last: int) -> Inputs:
    low, high = starts[first], starts[last]
    ids = inputs["input_ids"][0, low:high]
    packed = pack_tensors(list(ids.split(np.diff(starts[first : last + 1]).tolist())))
    moved = {n: t.to(ids.device) if isinstance(t, Tensor) else t for n, t in packed.items()}
    return {**moved, "labels": inputs["labels"][:, low:high]}
