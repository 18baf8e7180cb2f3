"""The tokenized data set on disk: an Arrow stream of ids and labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from tunebuild.prompt import Example
from tunebuild.prompt.example import IGNORED

#: ``labels`` is ``IGNORED`` where a token carries no loss, the convention of transformers.
SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])

_ROWS = 1000


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples, a batch at a time, to an Arrow IPC stream: what ``datasets`` maps into memory.

    Returns how many.
    """
    count, following = 0, iter(examples)
    with open_rows(path) as writer:
        while batch := list(islice(following, _ROWS)):
            ids = pa.array([e.ids for e in batch], SCHEMA.field("input_ids").type)
            spans = pa.array([[p for span in e.supervised for p in span] for e in batch], ids.type)
            writer.write_batch(with_labels(ids, spans))
            count += len(batch)
    return count


@contextmanager
def open_rows(path: Path) -> Iterator[pa.RecordBatchStreamWriter]:
    """A file of rows to write batches to."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        yield writer


def with_labels(ids: pa.ListArray, spans: pa.ListArray) -> pa.RecordBatch:
    """Rows with their labels.

    Args:
        ids: token ids of each row.
        spans: of each row, starts and ends of the supervised parts, in turn.
    """
    starts = ids.offsets.to_numpy().astype(np.int64) - ids.offsets[0].as_py()
    tokens = ids.flatten().to_numpy()
    places = spans.flatten().to_numpy() + np.repeat(starts[:-1], spans.value_lengths().to_numpy())
    # +1 where a span starts and -1 where it ends; summed up, 1 inside of spans.
    steps = np.zeros(len(tokens) + 1, np.int8)
    np.add.at(steps, places[0::2], 1)
    np.add.at(steps, places[1::2], -1)
    labels = np.where(np.cumsum(steps[:-1], dtype=np.int8) > 0, tokens, np.int32(IGNORED))
    offsets = pa.array(starts, pa.int32())
    columns = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (tokens, labels)]
    return pa.record_batch(columns, schema=SCHEMA)
