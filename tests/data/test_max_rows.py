"""``max_rows``: the first rows of a source, whatever its files are."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunebuild.data.reading import count_rows, read_rows
from tunebuild.data.source_files import SourceFiles
from tunebuild.spec.data import DataSource
from tunebuild.store import digest_file

ROWS = [{"question": f"q{n}", "answer": "a"} for n in range(5)]


def write(path):
    lines = "".join(json.dumps(row) + "\n\n" for row in ROWS)  # empty lines are no rows
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        path.write_text("question,answer\n" + "".join(f"{r['question']},a\n" for r in ROWS))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(json.dumps(ROWS) if path.suffix == ".json" else lines)


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.csv", "r.parquet", "r.jsonl.gz"])
@pytest.mark.parametrize("most", [1, 4, 5, 9])
def test_a_file_counts_as_many_rows_as_are_read_of_it(tmp_path, name, most):
    write(tmp_path / name)
    rows = list(read_rows(tmp_path / name, name))
    assert [row.value["question"] for row in rows] == [row["question"] for row in ROWS]
    assert count_rows(tmp_path / name, name, most) == min(most, len(rows))


@pytest.mark.parametrize(
    ("most", "expected"),
    [(2, [("a", 2)]), (5, [("a", 5)]), (7, [("a", 7), ("b", 2)]), (99, [("a", 99), ("b", 94), ("c", 89)])],
)
def test_the_files_of_a_pattern_share_it_in_order(tmp_path, most, expected):
    for name in "abc":
        write(tmp_path / f"{name}.jsonl")
    files = SourceFiles(tmp_path, tmp_path / "hub", None, digest_file)
    found = files.find((DataSource(path="*.jsonl", max_rows=most),), "data.train")
    assert [(source.path.stem, source.most) for source in found] == expected
