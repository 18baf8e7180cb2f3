"""The tokenised data set on disk: an Arrow stream of ids and labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from tunebuild.prompt import Example

#: ``labels`` is -100 where a token carries no loss, the convention of transformers.
SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


def write_examples(path: Path, examples: Iterable[Example], batch_rows: int = 1000) -> int:
    """Write examples, a batch at a time, to an Arrow IPC stream: what ``datasets`` maps into memory.

    Returns how many.
    """
    count = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        batch: list[Example] = []
        for example in examples:
            batch.append(example)
            if len(batch) == batch_rows:
                writer.write_batch(_to_batch(batch))
                count, batch = count + len(batch), []
        if batch:
            writer.write_batch(_to_batch(batch))
    return count + len(batch)


def _to_batch(examples: list[Example]) -> pa.RecordBatch:
    columns = [
        pa.array([e.ids for e in examples], SCHEMA.field("input_ids").type),
        pa.array([e.labels for e in examples], SCHEMA.field("labels").type),
    ]
    return pa.record_batch(columns, schema=SCHEMA)
