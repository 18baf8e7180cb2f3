"""Whatever is wrong with a base's files, the plan says it in words and names what is at fault."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.models import save_base
from tunebuild.build.checks import check_base, check_rows, check_spec
from tunebuild.build.pipeline import Pipeline
from tunebuild.errors import TunebuildError
from tunebuild.spec import load_spec
from tunebuild.store import Silent, Store
from tunebuild.train.plan.execution import plan_training
from tunebuild.train.plan.shapes import read_tensors

SPEC = """\
apiVersion: tunebuild/v1
name: tiny
data: {train: [{path: rows.jsonl, format: qa}]}
model: {base: ./base}
tuning: {method: lora}
"""
FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "model.safetensors",
)
#: What may stand in the place of any value.
HOSTILE = [None, True, -1, 0, 3, 10**30, 1e300, "", "x", "\x1b[2J", [], [None], {}, {"x": {}}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    save_base("llama", directory / "base")
    (directory / "rows.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    (directory / "spec.yaml").write_text(SPEC)
    return directory


def planned(directory: Path) -> str:
    """What the plan says of a base: an error, or nothing. Any other exception is a traceback to a user."""
    pipeline = Pipeline(load_spec(directory / "spec.yaml"), Store(directory / "store"))
    try:
        check_spec(pipeline)
        data = pipeline.store.ensure(pipeline.data(), Silent())
        check_rows(pipeline, data)
        check_base(pipeline, lambda _: Silent())
        tensors = read_tensors(pipeline.base.directory)
        plan_training(pipeline.base.config, tensors, pipeline.train_settings, np.array([20, 30]))
    except TunebuildError as error:
        return str(error)
    return ""


def places(value, path=()):
    """Paths of all values inside of a value, but for the entries of a vocabulary."""
    found = [path] if path else []
    if isinstance(value, dict):
        items = list(value.items())
    else:
        items = list(enumerate(value)) if isinstance(value, list) else []
    for key, inner in items[:40]:
        found += places(inner, (*path, key))
    return found


@cache
def read(file: Path):
    """A file's JSON, and the bytes behind it."""
    raw = file.read_bytes()
    if file.suffix == ".json":
        return json.loads(raw), b""
    end = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:end]), raw[end:]


def damaged(file: Path, path, value) -> bytes:
    """The file with another value at a path; without it where the value is ``...``."""
    document, rest = read(file)
    document = json.loads(json.dumps(document))
    parent = document
    for part in path[:-1]:
        parent = parent[part]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    text = json.dumps(document).encode()
    return text if file.suffix == ".json" else len(text).to_bytes(8, "little") + text + rest


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), name=st.sampled_from(FILES), value=st.sampled_from([..., *HOSTILE]))
def test_any_value_of_any_file_is_used_or_refused(whole, data, name, value):
    file = whole / "base" / name
    before = file.read_bytes()
    path = data.draw(st.sampled_from(places(read(file)[0])))
    try:
        file.write_bytes(damaged(file, path, value))
        said = planned(whole)
    finally:
        file.write_bytes(before)
    assert not said or any(word in said for word in ("base", name, "stored", "target"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_short_is_refused_by_its_name(whole, tmp_path, name):
    directory = tmp_path / "cut"
    shutil.copytree(whole, directory, ignore=shutil.ignore_patterns("store"))
    raw = (directory / "base" / name).read_bytes()
    for length in (0, 1, len(raw) // 2, len(raw.rstrip(b"\n")) - 1):
        (directory / "base" / name).write_bytes(raw[:length])
        assert name in planned(directory)
