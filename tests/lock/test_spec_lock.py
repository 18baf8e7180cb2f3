"""A lock reads and diffs well, and says what has moved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebuild.errors import TunebuildError
from tunebuild.lock.spec_lock import SpecLock, drift, lock_path, read_lock, split_pin, write_lock

DIGESTS = [f"sha256:{c * 64}" for c in "abc"]


def lock(**changes):
    value = {
        "tunebuild": "0.1.0",
        "template": {"chatml": DIGESTS[0]},
        "files": {"b.jsonl": DIGESTS[0], "a.jsonl": DIGESTS[1]},
        "model": {
            "base": "org/m",
            "revision": "main",
            "commit": "0" * 40,
            "files": {"config.json": DIGESTS[0]},
        },
        "datasets": {"org/d@main/x": {"base": "org/d", "commit": "1" * 40, "files": {"x": DIGESTS[2]}}},
        "runtime": {
            "platform": "linux/amd64",
            "suite": "bookworm",
            "python": "3.11",
            "requirements": ["torch>=2"],
            "packages": {"libc6": f"2.36-9 {DIGESTS[0]}"},
            "wheels": {"torch": f"2.13.0 {DIGESTS[1]}", "attrs": f"1 {DIGESTS[1]}"},
        },
    }
    return SpecLock.model_validate({**value, **changes})


def test_it_reads_back_and_is_written_the_same_way_every_time(tmp_path):
    path = lock_path(tmp_path / "spec.yaml")
    assert path.name == "spec.lock"
    assert read_lock(path) is None
    write_lock(lock(), path)
    first = path.read_text()
    assert read_lock(path) == lock()
    write_lock(lock(files=dict(sorted(lock().files.items()))), path)
    assert path.read_text() == first
    assert [p.name for p in tmp_path.iterdir()] == ["spec.lock"]


def test_one_change_is_one_line(tmp_path):
    texts = []
    for version in ("2.13.0", "2.14.0"):
        runtime = lock().runtime
        wheels = {**runtime.wheels, "torch": f"{version} {DIGESTS[2]}"}
        write_lock(lock(runtime=runtime.model_copy(update={"wheels": wheels})), tmp_path / "x.lock")
        texts.append((tmp_path / "x.lock").read_text().splitlines())
    assert len(texts[0]) == len(texts[1])
    assert sum(a != b for a, b in zip(*texts, strict=True)) == 1


def test_drift_names_what_moved():
    new = lock(files={"a.jsonl": DIGESTS[2], "c.jsonl": DIGESTS[0]}, tunebuild="0.2.0")
    assert [str(d) for d in drift(lock(), new)] == [
        f"~ files.a.jsonl {'b' * 12} -> {'c' * 12}",
        f"- files.b.jsonl {'a' * 12}",
        f"+ files.c.jsonl {'a' * 12}",
        "~ tunebuild 0.1.0 -> 0.2.0",
    ]
    assert drift(new, new) == ()


@pytest.mark.parametrize(
    "text", ["", "{}", "<<<<<<< HEAD\n", '{"lockVersion": 2}', "[1]", '{"files": 1}', "\x00"]
)
def test_a_damaged_lock_is_named(tmp_path, text):
    path = tmp_path / "spec.lock"
    path.write_text(text)
    with pytest.raises(TunebuildError, match=r"spec\.lock is not a lock"):
        read_lock(path)


@given(st.from_regex(r"[0-9][\w.+:~-]{0,20}", fullmatch=True))
def test_pins_split(version):
    assert split_pin(f"{version} {DIGESTS[0]}") == (version, "a" * 64)
