"""Files as they come: each is read as it was meant, or its rows are rejected with their lines."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tunebuild.data import _json_list
from tunebuild.data import reading as sources
from tunebuild.data.reading import read_rows
from tunebuild.errors import TunebuildError

ROWS = [{"question": "Größe?\nJa", "answer": "a\tb"}, {"question": "x", "answer": '"y"'}]
GOOD = b'{"question": "q", "answer": "a"}\n'


def read(path):
    return list(read_rows(path, path.name))


def table(path, delimiter):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["question", "answer"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".tsv"])
def test_every_kind_of_file_reads_alike(tmp_path, kind, packing):
    path = tmp_path / f"rows{kind}"
    if kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == ".json":
        path.write_text(json.dumps(ROWS, ensure_ascii=False), "utf-8")
    else:
        table(path, "," if kind == ".csv" else "\t")
    packed = path.with_name(path.name + packing)
    if packing == ".gz":
        packed.write_bytes(gzip.compress(path.read_bytes()))
    elif packing == ".zst":
        packed.write_bytes(zstandard.compress(path.read_bytes()))
    assert [row.value for row in read(packed)] == ROWS


def test_parquet_reads_alike_nested_turns_and_all(tmp_path):
    turns = [{"role": r, "content": c, "name": None} for r, c in (("user", "q"), ("assistant", "a"))]
    rows = [{**row, "messages": turns} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert [(row.line, row.value) for row in read(tmp_path / "rows.parquet")] == list(enumerate(rows, 1))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"question": "\xff", "answer": "a"}', "is not UTF-8"),
        (b'{"question": "q", "answer": ', "is not JSON"),
        (b'{"question": NaN, "answer": "a"}', "holds NaN"),
        (b'{"question": -Infinity, "answer": "a"}', "holds -Infinity"),
        (b'{"question": "\\ud83d", "answer": "a"}', "half of a surrogate pair"),
        (b'{"question": "\\uD83D alone", "answer": "a"}', "half of a surrogate pair"),
        (b"[" * 100_000, "nested too deeply"),
        (
            b'{"question": ' + b"9" * 5000 + b"}",
            "is not usable JSON: Exceeds the limit (4300 digits) for integer "
            "string conversion: value has 5000 digits",
        ),
        (b'{"question": "' + b"x" * (50 << 20) + b'", "answer": "a"}', "is longer than 16 MiB"),
    ],
    ids=["bytes", "cut", "nan", "infinity", "surrogate", "upper-case-surrogate", "deep", "digits", "50-MB"],
)
def test_a_bad_line_is_rejected_and_the_next_is_read(tmp_path, line, problem):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    first, bad, last = read(path)
    assert (first.line, bad.line, last.line) == (1, 2, 3)
    assert problem in bad.problem
    assert bad.value is None
    assert line.decode("utf-8", "replace").startswith(bad.text)
    assert len(bad.text) >= min(len(line.rstrip()), 1 << 19)
    assert first.value == last.value == {"question": "q", "answer": "a"}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": "b" "c": 1}', "Expecting ',' delimiter at column 11"),
        (b'{"a": "b"', "Expecting ',' delimiter at column 10"),
        (b'{"a": "b', "Unterminated string starting at column 7"),
        (b'{"a": "b\t"}', "Invalid control character at column 9"),
    ],
)
def test_the_column_is_where_a_line_breaks(tmp_path, line, problem, end):
    (tmp_path / "rows.jsonl").write_bytes(line + end)
    assert read(tmp_path / "rows.jsonl")[0].problem == f"is not JSON: {problem}"


def test_pairs_of_surrogates_are_characters(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"question": "\\ud83d\\ude00", "answer": "\\\\ud83d"}\n')
    assert read(tmp_path / "rows.jsonl")[0].value == {"question": "\U0001f600", "answer": "\\ud83d"}


def test_marks_line_ends_and_blank_lines(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(
        b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") + b"\r\n" + GOOD[:-1]
    )
    assert [row.line for row in read(tmp_path / "rows.jsonl")] == [1, 3]


def test_a_line_of_just_the_bound_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_ROW_BYTES", len(GOOD))
    (tmp_path / "rows.jsonl").write_bytes(GOOD + b" " + GOOD + GOOD)
    assert [bool(row.problem) for row in read(tmp_path / "rows.jsonl")] == [False, True, False]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"only", "has 1 cell"),
        (b"a,b,c", "has 3 cells"),
        (b"\xff,b", "is not UTF-8"),
        (b'"a"b,c', "is not CSV"),
    ],
)
def test_a_bad_csv_row_is_rejected_and_the_next_is_read(tmp_path, row, problem):
    (tmp_path / "rows.csv").write_bytes(b'question,answer\r\n"1\r\n2",a\r\n' + row + b"\r\nq,a\r\n")
    first, bad, last = read(tmp_path / "rows.csv")
    assert first.value == {"question": "1\r\n2", "answer": "a"}
    assert (bad.line, last.line) == (4, 5)
    assert problem in bad.problem
    assert bad.text == row.decode("utf-8", "replace") + "\r\n"
    assert last.value == {"question": "q", "answer": "a"}


def test_a_quote_that_is_never_closed_is_named(tmp_path):
    (tmp_path / "rows.csv").write_text('question,answer\nq,a\n"open,a\n')
    assert [bool(row.problem) for row in read(tmp_path / "rows.csv")] == [False, True]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", b"", "the file is empty"),
        ("r.csv", b"\xff\xfe", "is not UTF-8"),
        ("r.json", b"{}", "must be a list of rows"),
        ("r.json", b"[1,\n", "r.json:2:1: not JSON"),
        ("r.xlsx", b"", "cannot read '.xlsx' files"),
        ("r.csv", b"a,a\n1,2\n", "two columns are called 'a'"),
        (
            "r.csv",
            b"question;answer\na;b\n",
            "one cell, 'question;answer': .* commas here, not by semicolons; save it with commas",
        ),
        ("r.csv", b"question\tanswer\na\tb\n", "not by tabs; call it .tsv"),
        ("r.tsv", b"question,answer\na,b\n", "parted by tabs here, not by commas"),
        ("r.jsonl", b'\n [{"a": 1},\n{"a": 1}]', "r.jsonl:2:1: is one list of rows.* call it .json"),
        ("r.jsonl", b'[\r\n {"a": 1}\r\n]', "r.jsonl:1:1: is one list of rows"),
        ("r.json", b'[{"a": 1},\n{"a": 1}', "r.json:2:1: not JSON: expected a comma"),
        ("r.json", b'[{"a": 1}\n{"a": 1}]', "r.json:2:1: not JSON: expected a comma"),
        ("r.json", b'[{"a": 1}]\n, 2', "r.json:2:1: not JSON: something stands behind"),
        ("r.json", b"[1,\n]", "r.json:2:1: not JSON"),
        ("r.json", b"[" + b"9" * 5000 + b"]", "5000 digits; for one row a line"),
        ("r.json", b"", "r.json:1:1: not JSON: no list begins"),
        ("r.json", b"[" * 100_000, "nested too deeply"),
        ("r.jsonl.gz", b"not gzip", "r.jsonl.gz:1:1: is damaged"),
        ("r.jsonl.gz", gzip.compress(GOOD * 1000)[:-20], "is damaged"),
        ("r.jsonl.zst", b"not zstd", "is damaged"),
        ("r.parquet", b"not parquet", "not Parquet"),
        ("r.parquet.gz", b"", "cannot read '.parquet.gz' files"),
        ("noending", b"", "cannot read '' files"),
    ],
)
def test_a_file_that_is_not_what_it_says_stops_the_build(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TunebuildError, match=message):
        read(tmp_path / name)


def test_one_column_and_a_first_row_that_is_a_list_are_read(tmp_path):
    (tmp_path / "r.csv").write_text("text\na;b\n")
    (tmp_path / "r.jsonl").write_text('["a", "b"]\n{"text": "c"}\n')
    assert [row.value for row in read(tmp_path / "r.csv")] == [{"text": "a;b"}]
    assert [row.value for row in read(tmp_path / "r.jsonl")] == [["a", "b"], {"text": "c"}]


def test_bad_items_of_a_list_are_rejected_and_the_next_are_read(tmp_path):
    good = GOOD.strip()
    items = [good, b'{"a": NaN}', b'{"a": "\xff"}', b'{"a": "\\ud83d"}', good, b"[1]", b"12"]
    (tmp_path / "r.json").write_bytes(b"\xef\xbb\xbf [" + b" ,\r\n".join(items) + b"]\n")
    rows = read(tmp_path / "r.json")
    assert [row.line for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row.problem.partition(",")[0] for row in rows] == [
        "", "holds NaN", "is not UTF-8", "holds half of a surrogate pair", "", "", "",
    ]  # fmt: skip
    assert [row.text for row in rows if row.problem] == [i.decode("utf-8", "replace") for i in items[1:4]]
    assert [row.value for row in rows if not row.problem] == [rows[0].value, rows[0].value, [1], 12]


def test_an_item_of_a_list_that_is_too_long_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_ROW_BYTES", 1 << 20)
    (tmp_path / "r.json").write_bytes(b'[{"a": "' + b"x" * (3 << 20) + b'"}]')
    with pytest.raises(TunebuildError, match="an item is longer than 1 MiB"):
        read(tmp_path / "r.json")


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@given(items=st.lists(values, max_size=8), piece=st.integers(1, 9), indent=st.sampled_from([None, 0, 2]))
def test_a_list_is_what_json_says_wherever_it_is_cut(items, piece, indent):
    with patch.object(_json_list, "_PIECE", piece):
        text = json.dumps(items, ensure_ascii=False, indent=indent).encode("utf-8", "surrogatepass")
        found = [item.value for item in _json_list.read_list(io.BytesIO(text), 10_000)]
    assert found == items


def test_a_list_need_not_fit_in_memory(tmp_path):
    row = b'{"question": "' + b"q" * 1000 + b'", "answer": "a"}'
    (tmp_path / "r.json").write_bytes(b"[" + b",\n".join([row] * 20_000) + b"]")
    tracemalloc.start()
    assert sum(1 for _ in read_rows(tmp_path / "r.json", "r.json")) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20
