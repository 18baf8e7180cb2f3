"""Reads the tokenised rows, refuses what cannot be learnt from, and pads batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from tunebuild.errors import fail

_IGNORED = -100


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
        carried = np.concatenate(([0], np.cumsum(labels.flatten().to_numpy() != _IGNORED)))
        nothing = np.flatnonzero(carried[offsets[1:]] == carried[offsets[:-1]])
        if len(nothing):
            message = f"{path.name} row {number + nothing[0] + 1} has no supervised token"
            raise fail("no-target", message, path="data.train")
        number += len(labels)
    return rows


@dataclass(frozen=True, slots=True)
class PadRight:
    """Pads a batch on the right. Labels come from the data, so padding with the end token hides nothing."""

    pad_id: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """``input_ids``, ``attention_mask`` and ``labels``, each ``[rows, longest]`` of int64."""
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(key: str, filler: int) -> torch.Tensor:
            return torch.tensor([[*row[key], *[filler] * (longest - len(row[key]))] for row in rows])

        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        mask = (torch.arange(longest)[None, :] < lengths[:, None]).long()
        return {
            "input_ids": padded("input_ids", self.pad_id),
            "attention_mask": mask,
            "labels": padded("labels", _IGNORED),
        }
