"""A base whose index and shards do not agree is refused where it is found, before anything is read of it."""

from __future__ import annotations

import json

import pytest

from support.models import save_base
from tunebuild.errors import TunebuildError
from tunebuild.models.base_model import find_base_model
from tunebuild.spec.model import ModelSpec
from tunebuild.store import digest_file

INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path):
    base = save_base("llama", tmp_path / "base", shard="50KB")
    assert len(list(base.glob("model-*.safetensors"))) > 1
    return base


def find(base):
    return find_base_model(ModelSpec(base="./base"), base.parent, base.parent / "cache", digest_file)


def test_shards_that_are_all_there_are_found(sharded):
    assert {file.path for file in find(sharded).files} >= {path.name for path in sharded.glob("model-*")}


def test_missing_shard_is_named(sharded):
    gone = sorted(sharded.glob("model-*.safetensors"))[-1]
    gone.unlink()
    with pytest.raises(TunebuildError, match=gone.name):
        find(sharded)


@pytest.mark.parametrize(
    "places", [None, [], "x", {"a": 1}, {"a": "../base/config.json"}, {"a": "/etc/hosts"}]
)
def test_index_that_names_no_file_of_the_base_is_refused(sharded, places):
    (sharded / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    with pytest.raises(TunebuildError, match=r"weight_map|not in the directory"):
        find(sharded)


def test_index_beside_a_whole_file_is_not_asked(tmp_path):
    base = save_base("llama", tmp_path / "base")
    (base / INDEX).write_text(json.dumps({"weight_map": {"a": "model-00001-of-00009.safetensors"}}))
    assert find(base)
