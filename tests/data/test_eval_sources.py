"""Each held-out row's file is on record, in the order of the rows."""

from __future__ import annotations

import json

import pyarrow as pa

from support.models import save_base
from tunebuild.build.pipeline import Pipeline
from tunebuild.spec import load_spec
from tunebuild.store import Silent, Store

SPEC = """\
apiVersion: tunebuild/v1
name: bot
data:
  train: [{path: faq.jsonl}]
  eval: {files: [{path: one.jsonl}, {path: two.jsonl}]}
model: {base: ./base}
prompt: {template: chatml}
"""


def test_rows_of_two_files(tmp_path):
    base = save_base("llama", tmp_path / "base")
    for name, words in (("faq", ["red", "blue"]), ("one", ["green", "old"]), ("two", ["new"])):
        rows = [json.dumps({"question": f"What is {w}?", "answer": f"{w}."}) for w in words]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "spec.yaml").write_text(SPEC)
    store = Store(tmp_path / "store")
    pipeline = Pipeline(load_spec(tmp_path / "spec.yaml"), store)
    assert pipeline.base.directory == base
    output = store.ensure(pipeline.data(), Silent())
    found = json.loads(output.path("eval_sources.json").read_text())
    with pa.OSFile(str(output.path("eval.arrow"))) as file:
        ids = pa.ipc.open_stream(file).read_all()["input_ids"].to_pylist()
    texts = [pipeline.renderer.decode(row) for row in ids]
    assert len(texts) == len(found["rows"]) == 3
    for text, number in zip(texts, found["rows"], strict=True):
        word = text.partition("What is ")[2].partition("?")[0]
        assert f"What is {word}?" in pipeline.data().sources[number].path.read_text()


def test_names_that_are_not_in_the_key_are_not_in_what_is_recorded(tmp_path):
    save_base("llama", tmp_path / "base")
    for name in ("faq", "one", "two", "faq_2", "one_2", "two_2"):
        row = {"question": f"What is {name[:3]}?", "answer": f"{name[:3]}."}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    store = Store(tmp_path / "store")
    outputs, names = [], []
    for spec in (SPEC, SPEC.replace(".jsonl", "_2.jsonl")):
        (tmp_path / "spec.yaml").write_text(spec)
        pipeline = Pipeline(load_spec(tmp_path / "spec.yaml"), store)
        outputs.append(store.ensure(pipeline.data(), Silent()))
        names.append([source.shown for source in pipeline.data().sources])
    assert outputs[0].root == outputs[1].root
    assert "jsonl" not in outputs[0].path("eval_sources.json").read_text()
    assert names == [["faq.jsonl", "one.jsonl", "two.jsonl"], ["faq_2.jsonl", "one_2.jsonl", "two_2.jsonl"]]


def test_nothing_is_on_record_where_nothing_is_held_out(tmp_path):
    save_base("llama", tmp_path / "base")
    (tmp_path / "faq.jsonl").write_text('{"question": "Q?", "answer": "A."}\n')
    (tmp_path / "spec.yaml").write_text(
        SPEC.replace("  eval: {files: [{path: one.jsonl}, {path: two.jsonl}]}\n", "")
    )
    store = Store(tmp_path / "store")
    pipeline = Pipeline(load_spec(tmp_path / "spec.yaml"), store)
    assert not store.ensure(pipeline.data(), Silent()).path("eval_sources.json").exists()
