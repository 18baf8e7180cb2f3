"""Samples as a batch of Arrow's."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from tunebuild.data.likeness import questions_of
from tunebuild.prompt import Message

#: A sample: ``spans`` are starts and ends of the supervised parts, in turn; ``messages`` is JSON; ``answers``
#: counts assistant turns, 0 for plain text; ``source`` and ``line`` say where the row stands. Each answer
#: that is supervised has a question, with a digest. Signatures are those of :mod:`tunebuild.data.near`, empty
#: where nobody asks for them.
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("spans", pa.list_(pa.int32())),
        ("messages", pa.string()),
        ("row_digest", pa.binary(16)),
        ("question_digests", pa.list_(pa.binary(16))),
        ("source", pa.int32()),
        ("line", pa.int64()),
        ("answers", pa.int32()),
        ("shortened", pa.bool_()),
        ("row_signature", pa.binary()),
        ("question_signatures", pa.list_(pa.binary())),
    ]
)


class Sample(NamedTuple):
    """One row of :data:`SCHEMA`, without its signatures; ``trained`` are the supervised turns."""

    input_ids: list[int]
    spans: list[int]
    messages: str
    row_digest: bytes
    question_digests: list[bytes]
    source: int
    line: int
    answers: int
    shortened: bool
    trained: list[int]


def batch_of(samples: Sequence[Sample], *, near: bool) -> pa.RecordBatch:
    """The batch, of :data:`SCHEMA`; signed if rows that are nearly the same are looked for."""
    width = len(Sample._fields) - 1
    ids, spans, *others, _ = zip(*samples, strict=True) if samples else [()] * (width + 1)
    columns = [_lists(ids), _lists(spans)]
    columns += [pa.array(v, field.type) for v, field in zip(others, list(SCHEMA)[2:width], strict=True)]
    columns += _signatures(samples) if near else _no_signatures(samples)
    return pa.record_batch(columns, schema=SCHEMA)


def _no_signatures(samples: Sequence[Sample]) -> list[pa.Array]:
    of_questions = [[b""] * len(sample.trained) for sample in samples]
    return [pa.array([b""] * len(samples), pa.binary()), pa.array(of_questions, pa.list_(pa.binary()))]


def _signatures(samples: Sequence[Sample]) -> list[pa.Array]:
    from tunebuild.data.near import signatures

    talks = [json.loads(sample.messages) for sample in samples]
    rows = signatures([_joined(talk) for talk in talks])
    asked = [questions_of(talk, s.trained) for talk, s in zip(talks, samples, strict=True)]
    of_questions = iter(signatures([_joined(question) for questions in asked for question in questions]))
    return [
        pa.array([row.tobytes() for row in rows], pa.binary()),
        pa.array([[next(of_questions).tobytes() for _ in q] for q in asked], pa.list_(pa.binary())),
    ]


def _joined(turns: Sequence[Message]) -> str:
    return "\n".join(str(turn["content"]) for turn in turns)


def _lists(rows: Sequence[list[int]]) -> pa.ListArray:
    """Lists of numbers as Arrow. Several times faster than Arrow's own reading of lists."""
    values, ends = array("i"), array("i", [0])
    for row in rows:
        values.fromlist(row)
        ends.append(len(values))
    return pa.ListArray.from_arrays(_int32(ends), _int32(values))


def _int32(values: array[int]) -> pa.Array:
    return pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)])
