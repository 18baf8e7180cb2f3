"""What comes from a hub is pinned, fetched once, checked, and its refusals are understood."""

from __future__ import annotations

import json
import struct

import pytest

from support.hub import Hub
from support.models import save_base
from tunebuild.build.pipeline import Pipeline
from tunebuild.data.source_files import wanted_datasets
from tunebuild.errors import TunebuildError
from tunebuild.lock.spec_lock import SpecLock
from tunebuild.models.base_model import find_base_model, locked_model
from tunebuild.sources.hub import HubRepository, fetch, resolve
from tunebuild.spec import load_spec
from tunebuild.spec.model import ModelSpec
from tunebuild.store import Store, digest_bytes, digest_file

REPOSITORY = HubRepository("model", "org/tiny", "model.base")


def safetensors(seed: int, size: int = 40_000) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + (bytes([seed]) * 99 + b"-") * (size // 100)


FILES = {
    "config.json": b'{"vocab_size": 3}',
    "model.safetensors": safetensors(1),
    "tokenizer.json": b"{}",
    "pickled.bin": b"never fetched",
    "onnx/config.json": b"never fetched",
}


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    hub.commit(FILES, "main", "v1.0")
    with hub.running():
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def test_a_branch_a_tag_and_a_commit_are_the_same_commit(hub, tmp_path):
    commit = hub.revisions["main"]
    found = [resolve(REPOSITORY, name, tmp_path) for name in ("main", "v1.0", commit)]
    assert {snapshot.commit for snapshot in found} == {commit}
    assert {f.path: f.digest for f in found[0].files} == {
        name: digest_bytes(FILES[name]) for name in ("config.json", "model.safetensors", "tokenizer.json")
    }
    assert not any("model.safetensors" in path for method, path, _ in hub.asked if method == "GET")


def test_a_commit_is_fetched_once_and_then_found_without_the_hub(hub, tmp_path):
    commit = hub.revisions["main"]
    directory = fetch(REPOSITORY, commit, tmp_path)
    assert (directory / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert sorted(p.name for p in directory.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    hub.asked.clear()
    hub.answer = 500
    assert fetch(REPOSITORY, commit, tmp_path) == directory
    assert not [path for method, path, _ in hub.asked if method == "GET" and "resolve" in path]


def test_it_is_found_when_the_hub_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub = Hub()
    commit = hub.commit(FILES, "main")
    with hub.running():
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        directory = fetch(REPOSITORY, commit, tmp_path)
    assert fetch(REPOSITORY, commit, tmp_path) == directory
    with pytest.raises(TunebuildError, match="cannot be reached"):
        fetch(REPOSITORY, "0" * 40, tmp_path)


def test_a_download_that_breaks_off_goes_on_where_it_was(hub, tmp_path):
    large = safetensors(3, 24_000_000)  # the library keeps what it got in pieces of 10 MiB
    commit = hub.commit({**FILES, "model.safetensors": large}, "main")
    hub.cut_after = 15_000_000
    directory = fetch(REPOSITORY, commit, tmp_path)
    assert (directory / "model.safetensors").read_bytes() == large
    ranges = [wanted for _, path, wanted in hub.asked if path.endswith("model.safetensors") and wanted]
    assert ranges == [f"bytes={10 << 20}-"]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda hub: setattr(hub, "token", "wanted"), "hub-gated"),
        (lambda hub: setattr(hub, "repository", "org/other"), "hub-unknown"),
        (lambda hub: hub.revisions.clear(), "hub-revision"),
        (lambda hub: setattr(hub, "answer", 429), "hub-rate-limit"),
    ],
)
def test_refusals_are_understood(hub, tmp_path, spoil, code, monkeypatch):
    # The library waits and tries again by itself when it is told to slow down; a test need not.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    spoil(hub)
    with pytest.raises(TunebuildError) as caught:
        resolve(REPOSITORY, "main", tmp_path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    assert diagnostic.path == "model.base"
    assert diagnostic.hint


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "hub-gated"), (403, "hub-gated"), (429, "hub-rate-limit"), (500, "hub")],
)
@pytest.mark.parametrize("ask", [resolve, fetch])
def test_a_refusal_is_not_taken_for_a_broken_network(hub, tmp_path, monkeypatch, ask, status, code):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.answer = status
    with pytest.raises(TunebuildError) as caught:
        ask(REPOSITORY, hub.revisions["main"], tmp_path)
    assert [d.code for d in caught.value.diagnostics] == [code]


def test_a_hub_that_is_gone_is_named(tmp_path, monkeypatch):
    hub = Hub()
    with hub.running():
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
    with pytest.raises(TunebuildError) as caught:
        resolve(REPOSITORY, "main", tmp_path)
    assert [d.code for d in caught.value.diagnostics] == ["hub-offline"]


def test_a_connection_that_keeps_breaking_is_named(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(Hub, "cut_after", property(lambda hub: 100, lambda hub, value: None))
    del hub.__dict__["cut_after"]
    with pytest.raises(TunebuildError) as caught:
        fetch(REPOSITORY, hub.revisions["main"], tmp_path)
    assert [d.code for d in caught.value.diagnostics] == ["hub-offline"]


def test_a_name_that_no_repository_has_is_no_traceback(hub, tmp_path):
    with pytest.raises(TunebuildError, match="not the name of a repository"):
        resolve(HubRepository("model", "a/b/c", "model.base"), "main", tmp_path)


def test_a_cache_that_only_a_lock_has_filled_is_not_taken_for_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub = Hub()
    commit = hub.commit(FILES, "main")
    with hub.running():
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        expected = {f.path: f.digest for f in resolve(REPOSITORY, commit, tmp_path).files}
    with pytest.raises(TunebuildError) as caught:
        fetch(REPOSITORY, commit, tmp_path, expected=expected)
    assert [d.code for d in caught.value.diagnostics] == ["hub-offline"]


def test_a_file_that_the_commit_lacks_is_named(hub, tmp_path):
    expected = {"tokenizer.model": digest_bytes(b"")}
    with pytest.raises(TunebuildError, match=r"tokenizer\.model: is not there"):
        fetch(REPOSITORY, hub.revisions["main"], tmp_path, expected=expected)


def test_a_token_opens_and_is_never_shown(hub, tmp_path):
    hub.token = "open-sesame"
    assert resolve(REPOSITORY, "main", tmp_path, "open-sesame").commit == hub.revisions["main"]
    with pytest.raises(TunebuildError) as caught:
        resolve(REPOSITORY, "main", tmp_path, "wrong-secret")
    assert "wrong-secret" not in str(caught.value)


def test_a_wrong_checksum_is_named_and_the_next_try_fetches_again(hub, tmp_path):
    commit = hub.revisions["main"]
    expected = {f.path: f.digest for f in resolve(REPOSITORY, commit, tmp_path).files}
    hub.damaged = True
    with pytest.raises(TunebuildError, match=r"model\.safetensors: the hub sent another file than the lock"):
        fetch(REPOSITORY, commit, tmp_path, expected=expected)
    hub.damaged = False
    directory = fetch(REPOSITORY, commit, tmp_path, expected=expected)
    assert digest_file(directory / "model.safetensors") == expected["model.safetensors"]


def test_a_branch_needs_a_lock_and_the_lock_keeps_its_commit(hub, tmp_path):
    model = ModelSpec(base="org/tiny", revision="main")
    with pytest.raises(TunebuildError, match="run 'tunebuild lock'"):
        find_base_model(model, tmp_path, tmp_path, digest_file)
    locked = locked_model(model, tmp_path, tmp_path, digest_file, None)
    first = hub.revisions["main"]
    assert locked.commit == first
    second = hub.commit({**FILES, "model.safetensors": safetensors(2)}, "main")
    assert locked_model(model, tmp_path, tmp_path, digest_file, locked) == locked
    base = find_base_model(model, tmp_path, tmp_path, digest_file, locked)
    assert {f.path: f.digest for f in base.files} == locked.files
    moved = locked_model(model, tmp_path, tmp_path, digest_file, None)
    assert moved.commit == second
    assert moved.files["model.safetensors"] != locked.files["model.safetensors"]


def test_a_repository_of_an_adapter_is_no_base(hub, tmp_path):
    commit = hub.commit(
        {"adapter_model.safetensors": safetensors(1), "adapter_config.json": b"{}"}, "adapter"
    )
    with pytest.raises(TunebuildError, match=r"holds no config\.json"):
        find_base_model(ModelSpec(base="org/tiny", revision=commit), tmp_path, tmp_path, digest_file)


def test_another_model_in_the_spec_is_resolved_anew(hub, tmp_path):
    locked = locked_model(ModelSpec(base="org/tiny"), tmp_path, tmp_path, digest_file, None)
    with pytest.raises(TunebuildError, match="no such repository"):
        locked_model(ModelSpec(base="org/else"), tmp_path, tmp_path, digest_file, locked)


def test_a_token_comes_from_the_variable_that_the_spec_names(hub, tmp_path, monkeypatch):
    hub.token = "open-sesame"
    monkeypatch.setenv("HUB_SECRET", "open-sesame")
    model = ModelSpec(base="org/tiny", token="${env:HUB_SECRET}")
    assert locked_model(model, tmp_path, tmp_path, digest_file, None).commit == hub.revisions["main"]
    assert "open-sesame" not in model.model_dump_json()


def test_rows_come_from_a_dataset_repository(hub, tmp_path):
    rows = b'{"question": "Q?", "answer": "A."}\n'
    hub.commit({"data/train.jsonl": rows, "other.jsonl": b"never fetched"}, "main")
    save_base("llama", tmp_path / "base")
    source = "{hub: org/tiny, path: data/train.jsonl, format: qa}"
    spec = f"apiVersion: tunebuild/v1\nname: x\nmodel: {{base: ./base}}\ndata: {{train: [{source}]}}\n"
    (tmp_path / "spec.yaml").write_text(spec)
    loaded, store = load_spec(tmp_path / "spec.yaml"), Store(tmp_path / "store")
    with pytest.raises(TunebuildError, match="'org/tiny' is not pinned to a commit"):
        Pipeline(loaded, store).data()
    ((name, wanted),) = wanted_datasets(loaded.spec).items()
    assert name == "org/tiny@main/data/train.jsonl"
    locked = wanted.lock(None, store.root / "hub")
    assert locked.files == {"data/train.jsonl": digest_bytes(rows)}
    hub.commit({"data/train.jsonl": rows * 2}, "main")
    (found,) = Pipeline(loaded, store, lock_with({name: locked})).data().train
    assert found.path.read_bytes() == rows
    assert not list(tmp_path.rglob("other.jsonl"))


def lock_with(datasets):
    nothing = {"platform": "", "suite": "", "python": "", "requirements": [], "packages": {}, "wheels": {}}
    model = {"base": "x", "files": {}}
    return SpecLock(tunebuild="0", template={}, files={}, model=model, datasets=datasets, runtime=nothing)
