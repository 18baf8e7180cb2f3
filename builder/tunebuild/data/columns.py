"""What decides over samples, kept in memory while the samples themselves lie on disk.

That is 41 bytes a sample and 16 a question, and 128 more of each where near duplicates are looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunebuild.data.samples import SCHEMA

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """One entry a sample, in order, and one a question: each supervised answer answers one.

    Attributes:
        row: digests, ``[samples, 2]`` of uint64: equal for equal rows.
        questions: how many questions each sample has.
        question: digests, ``[questions, 2]``: equal where the same is asked; in order of the samples.
        source, line: where the row stands: the file's number, the line in it.
        tokens, supervised: how many tokens, how many of them are supervised.
        answers: assistant turns; 0 for plain text.
        shortened: whether the beginning of the prompt was cut.
        row_signature, question_signature: ``[samples, numbers]`` and ``[questions, numbers]`` of uint16, of
            :mod:`tunebuild.data.near`; no numbers where nobody asks for them.
        names: the files' names, by number.
    """

    row: Array
    questions: Array
    question: Array
    source: Array
    line: Array
    tokens: Array
    supervised: Array
    answers: Array
    shortened: Array
    row_signature: Array
    question_signature: Array
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.line)

    @property
    def asked_by(self) -> Array:
        """Of each question, the sample."""
        return np.repeat(np.arange(len(self)), self.questions)

    def name(self, index: int) -> str:
        """``file:line`` of a sample."""
        return f"{self.names[self.source[index]]}:{self.line[index]}"

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Columns:
        """Of samples as :mod:`tunebuild.data.tokenize` makes them."""
        spans = batch["spans"]
        places = spans.flatten().to_numpy().reshape(-1, 2)
        # Two places make a span; how many spans came before tells which belong to a sample.
        ends = np.concatenate(([0], np.cumsum(places[:, 1] - places[:, 0])))
        offsets = (spans.offsets.to_numpy() - spans.offsets[0].as_py()) // 2
        return cls(
            _digests(batch["row_digest"]),
            batch["question_digests"].value_lengths().to_numpy(),
            _digests(batch["question_digests"].flatten()),
            batch["source"].to_numpy(),
            batch["line"].to_numpy(),
            batch["input_ids"].value_lengths().to_numpy(),
            (ends[offsets[1:]] - ends[offsets[:-1]]).astype(np.int32),
            batch["answers"].to_numpy(),
            batch["shortened"].to_numpy(zero_copy_only=False),
            _signatures(batch["row_signature"]),
            _signatures(batch["question_signatures"].flatten()),
        )

    @classmethod
    def joined(cls, parts: Sequence[Columns], names: Sequence[str]) -> Columns:
        """All of them, one after the other."""
        some = parts or [cls.of(pa.RecordBatch.from_pylist([], SCHEMA))]
        arrays = {f.name: np.concatenate([getattr(p, f.name) for p in some]) for f in fields(cls)[:-1]}
        return cls(**arrays, names=tuple(names))


def first_equal(digests: Array) -> Array:
    """For each digest the index of the first that equals it."""
    pairs = np.ascontiguousarray(digests).view([("a", np.uint64), ("b", np.uint64)]).ravel()
    _, first, group = np.unique(pairs, return_index=True, return_inverse=True)
    return np.asarray(first[group])


def _signatures(column: pa.Array) -> Array:
    data = b"".join(column.to_pylist())
    return (
        np.frombuffer(data, np.uint16).reshape(len(column), -1)
        if data
        else np.zeros((len(column), 0), np.uint16)
    )


def _digests(column: pa.Array) -> Array:
    if not len(column):
        return np.zeros((0, 2), np.uint64)
    data = np.frombuffer(column.buffers()[1], np.uint64).reshape(-1, 2)
    return data[column.offset : column.offset + len(column)]
