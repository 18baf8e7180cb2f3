"""``--locked`` notices files that a pattern came to mean after the lock was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.models import save_base
from tunebuild.build.lock import find_drift, make_locks, require_no_drift
from tunebuild.build.pipeline import Pipeline
from tunebuild.errors import TunebuildError
from tunebuild.lock.find import Found
from tunebuild.lock.record import record_of
from tunebuild.lock.spec_lock import SpecLock
from tunebuild.spec import load_spec
from tunebuild.store import Store

ROW = '{"question": "Q?", "answer": "A."}\n'


@pytest.fixture
def locked(tmp_path):
    save_base("llama", tmp_path / "base")
    (tmp_path / "rows").mkdir()
    for name in ("a", "b"):
        (tmp_path / "rows" / f"{name}.jsonl").write_text(ROW)
    (tmp_path / "spec.yaml").write_text(
        "apiVersion: tunebuild/v1\nname: x\nmodel: {base: ./base}\nprompt: {template: chatml}\n"
        "data: {train: [{path: 'rows/*.jsonl'}]}\n"
    )
    pipeline = Pipeline(load_spec(tmp_path / "spec.yaml"), Store(tmp_path / "store"))
    nothing = {"platform": "", "suite": "", "python": "", "requirements": [], "packages": {}, "wheels": {}}
    lock = SpecLock(
        tunebuild="0", template={}, files={}, model={"base": "x", "files": {}}, datasets={}, runtime=nothing
    )
    files = {
        d.name.removeprefix("files."): d.new
        for d in find_drift(pipeline, lock)
        if d.name.startswith("files.")
    }
    assert set(files) == {"rows/a.jsonl", "rows/b.jsonl"}
    return pipeline, lock.model_copy(update={"files": files}), tmp_path / "rows"


def data_drift(pipeline, lock):
    return [str(d).split()[:2] for d in find_drift(pipeline, lock) if d.name.startswith("files.")]


def test_a_new_file_of_a_pattern_is_drift(locked):
    pipeline, lock, rows = locked
    assert data_drift(pipeline, lock) == []
    (rows / "c.jsonl").write_text(ROW)
    (rows / "notes.txt").write_text("no row")
    assert data_drift(pipeline, lock) == [["+", "files.rows/c.jsonl"]]
    recorded = lock.model_copy(update={"spec": record_of(pipeline.spec)})
    with pytest.raises(TunebuildError, match=r"\+ files.rows/c.jsonl"):
        require_no_drift(pipeline, Found(Path("spec.lock"), recorded))


def test_a_file_that_is_gone_or_changed_is_drift(locked):
    pipeline, lock, rows = locked
    (rows / "a.jsonl").unlink()
    (rows / "b.jsonl").write_text(ROW * 2)
    assert data_drift(pipeline, lock) == [["-", "files.rows/a.jsonl"], ["~", "files.rows/b.jsonl"]]


def test_a_model_that_cannot_be_found_is_named_before_packages_are_fetched(locked, monkeypatch):
    pipeline, _, rows = locked
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    loaded = load_spec(rows.parent / "spec.yaml", ["model.base=org/misspelt"])
    asked = []
    with pytest.raises(TunebuildError, match="org/misspelt"):
        make_locks({"spec.yaml": Pipeline(loaded, pipeline.store)}, (), (), asked.append)
    assert asked == []
