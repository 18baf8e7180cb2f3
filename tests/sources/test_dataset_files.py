"""A split of a dataset on a hub: found as the datasets library finds it, pinned, and read from its files."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.hub import Hub
from support.models import save_base
from tunebuild.build.pipeline import Pipeline
from tunebuild.data.reading import read_rows
from tunebuild.data.source_files import wanted_datasets
from tunebuild.errors import TunebuildError
from tunebuild.lock.spec_lock import SpecLock
from tunebuild.sources.dataset_files import Split, find_split, recall_split
from tunebuild.sources.hub import HubRepository
from tunebuild.spec import load_spec
from tunebuild.store import Store, digest_bytes

REPOSITORY = HubRepository("dataset", "org/tiny", "data.train[0].hub")


def parquet(*questions):
    stream = io.BytesIO()
    pq.write_table(pa.table({"question": questions, "answer": ["A."] * len(questions)}), stream)
    return stream.getvalue()


SHARDS = {
    "data/train-00000-of-00002.parquet": parquet("a", "b"),
    "data/train-00001-of-00002.parquet": parquet("c"),
    "data/test-00000-of-00001.parquet": parquet("d"),
    "README.md": b"# Tiny",
    "tiny.py": b"raise SystemExit('code of the repository was run')",
    "dataset.py": b"raise SystemExit('code of the repository was run')",
}
CONFIGS = b"""---
configs:
- config_name: en
  data_files:
  - split: train
    path: english/*.jsonl
- config_name: de
  data_files: german.csv
---
"""


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    with hub.running():
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


@pytest.mark.parametrize(
    ("files", "split", "names"),
    [
        (SHARDS, Split("train"), sorted(SHARDS)[2:4]),
        (SHARDS, Split("test"), ["data/test-00000-of-00001.parquet"]),
        (
            {"train.jsonl.zst": b"", "validation.jsonl.zst": b""},
            Split("validation"),
            ["validation.jsonl.zst"],
        ),
        ({"rows.csv": b""}, Split("train"), ["rows.csv"]),
        (
            {"README.md": CONFIGS, "english/b.jsonl": b"", "english/a.jsonl": b"", "german.csv": b""},
            Split("train", "en"),
            ["english/a.jsonl", "english/b.jsonl"],
        ),
    ],
)
def test_splits_are_found_by_names_and_by_what_the_readme_declares(hub, tmp_path, files, split, names):
    commit = hub.commit(files, "main")
    found = find_split(REPOSITORY, "main", split, tmp_path)
    assert (found.commit, list(found.names)) == (commit, names)
    # Nothing but the README was downloaded to find out.
    got = {
        path.rpartition("/")[2] for method, path, _ in hub.asked if method == "GET" and "/api/" not in path
    }
    assert got <= {"README.md"}


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        (SHARDS, Split("dev"), r"no split 'dev': it has test, train"),
        (SHARDS, Split("train", "xx"), r"no split 'xx/train': BuilderConfig 'xx' not found"),
        (
            {"README.md": CONFIGS, "english/a.jsonl": b"", "german.csv": b""},
            Split("train"),
            r"\['en', 'de'\]",
        ),
        ({"model.bin": b""}, Split("train"), r"No \(supported\) data files"),
        ({"README.md": b"---\nconfigs: 3\n---\n", "a.jsonl": b""}, Split("train"), r"has no split 'train'"),
        ({"train/a.txt": b""}, Split("train"), r"cannot read 'train/a.txt' of split 'train'"),
        ({"../../train.jsonl": b""}, Split("train"), r"has no split 'train'"),
    ],
)
def test_what_is_no_split_is_said(hub, tmp_path, files, split, message):
    hub.commit(files, "main")
    with pytest.raises(TunebuildError, match=message) as raised:
        find_split(REPOSITORY, "main", split, tmp_path)
    assert raised.value.diagnostics[0].code == "no-split"
    assert raised.value.diagnostics[0].path == "data.train[0].hub"


def test_a_split_of_a_commit_is_found_once(hub, tmp_path):
    commit = hub.commit(SHARDS, "main")
    first = recall_split(REPOSITORY, commit, Split("train"), tmp_path)
    asked = len(hub.asked)
    assert recall_split(REPOSITORY, commit, Split("train"), tmp_path) == first
    assert len(hub.asked) == asked
    assert recall_split(REPOSITORY, commit, Split("test"), tmp_path) != first


def pipeline(tmp_path, source, lock=None):
    spec = f"apiVersion: tunebuild/v1\nname: x\nmodel: {{base: ./base}}\ndata: {{train: [{source}]}}\n"
    (tmp_path / "spec.yaml").write_text(spec)
    return Pipeline(load_spec(tmp_path / "spec.yaml"), Store(tmp_path / "store"), lock)


def a_lock(datasets):
    """A lock that says something of data sets alone."""
    nothing = {"platform": "", "suite": "", "python": "", "requirements": [], "packages": {}, "wheels": {}}
    model = {"base": "x", "files": {}}
    return SpecLock(tunebuild="0", template={}, files={}, model=model, datasets=datasets, runtime=nothing)


def test_rows_come_from_a_split_at_the_locked_commit(hub, tmp_path):
    hub.commit(SHARDS, "main")
    save_base("llama", tmp_path / "base")
    source = "{hub: org/tiny, split: train}"
    ((name, wanted),) = wanted_datasets(pipeline(tmp_path, source).spec).items()
    assert name == "org/tiny@main#train"
    locked = wanted.lock(None, tmp_path / "store" / "hub")
    assert locked.files == {n: digest_bytes(SHARDS[n]) for n in sorted(SHARDS)[2:4]}
    with pytest.raises(TunebuildError, match="not pinned to a commit"):
        pipeline(tmp_path, source).data()

    hub.commit({**SHARDS, "data/train-00002-of-00002.parquet": parquet("new")}, "main")
    found = pipeline(tmp_path, source, a_lock({name: locked})).data().train
    assert [s.shown for s in found] == [f"org/tiny/{n}" for n in sorted(SHARDS)[2:4]]
    rows = [row.value["question"] for s in found for row in read_rows(s.path, s.shown)]
    assert rows == ["a", "b", "c"]
    assert not list(tmp_path.rglob("tiny.py"))


def test_a_commit_in_the_spec_needs_no_lock_and_works_without_the_hub_afterwards(hub, tmp_path):
    commit = hub.commit(SHARDS, "main")
    save_base("llama", tmp_path / "base")
    source = f"{{hub: org/tiny, split: test, revision: {commit}}}"
    key = pipeline(tmp_path, source).data().own()
    hub.answer = 503
    assert pipeline(tmp_path, source).data().own() == key
    assert json.dumps(key["sources"]).count("digest") == 1


@pytest.mark.parametrize("pinned", ["commit", "lock"])
def test_no_more_files_of_a_split_are_downloaded_than_hold_the_rows_that_are_wanted(hub, tmp_path, pinned):
    parts = {f"data/train-{n:05d}-of-00004.parquet": parquet(f"q{2 * n}", f"q{2 * n + 1}") for n in range(4)}
    commit = hub.commit(parts, "main")
    save_base("llama", tmp_path / "base")
    source = (
        f"{{hub: org/tiny, split: train, max_rows: 3, revision: {commit if pinned == 'commit' else 'main'}}}"
    )
    lock = None
    if pinned == "lock":
        wanted = wanted_datasets(pipeline(tmp_path, source).spec)
        lock = a_lock({name: one.lock(None, tmp_path / "store" / "hub") for name, one in wanted.items()})
    stage = pipeline(tmp_path, source, lock).data()
    names = sorted(parts)
    assert [(s.shown, s.most) for s in stage.train] == [
        (f"org/tiny/{names[0]}", 3),
        (f"org/tiny/{names[1]}", 1),
    ]
    fetched = {
        path.rpartition("/")[2] for method, path, _ in hub.asked if method == "GET" and "/resolve/" in path
    }
    assert fetched == {name.rpartition("/")[2] for name in names[:2]}
    hub.answer = 503
    assert pipeline(tmp_path, source, lock).data().own() == stage.own()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{split: train}", "a file beside the spec has no split"),
        ("{format: qa}", "names no rows"),
        ("{hub: org/tiny}", "names neither a file nor a split"),
        ("{hub: org/tiny, split: train, path: a.jsonl}", "only one of them can be meant"),
        ("{hub: org/tiny, path: a.jsonl, config: en}", "only a split has a configuration"),
    ],
)
def test_a_source_names_one_thing(tmp_path, source, message):
    save_base("llama", tmp_path / "base")
    with pytest.raises(TunebuildError, match=message):
        pipeline(tmp_path, source)
