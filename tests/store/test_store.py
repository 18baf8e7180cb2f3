"""Stages are built once, found by content, and never believed when they are not whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebuild.errors import TunebuildError
from tunebuild.store import Silent, Store, canonical_json, differences, digest_file, digest_json, scan
from tunebuild.store.inventory import collect

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@dataclass
class Writes:
    """A stage that writes its text into a file and counts its runs."""

    text: str
    name: str = "writes"
    version: int = 1
    runs: list[str] = field(default_factory=list)

    def own(self):
        return {"text": self.text, "nested": {"b": 1, "a": [1, 2]}}

    def upstream(self):
        return {}

    def run(self, work, out, progress):
        self.runs.append(self.text)
        (out / "sub").mkdir()
        (out / "sub" / "file").write_text(self.text)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_stage_runs_once(store):
    stage = Writes("hello")
    assert store.find(stage) is None
    first = store.ensure(stage, Silent())
    again = store.ensure(Writes("hello"), Silent())
    assert first == again == store.find(stage)
    assert first.path("sub", "file").read_text() == "hello"
    assert stage.runs == ["hello"]


def test_other_inputs_or_another_version_run_again(store):
    store.ensure(Writes("hello"), Silent())
    for other in (Writes("bye"), Writes("hello", version=2), Writes("hello", name="other")):
        assert store.find(other) is None
    reason = store.why(Writes("bye"))
    assert (reason.field, reason.old, reason.new) == ("text", "hello", "bye")
    assert str(store.why(Writes("x", name="never"))) == "not built before"


def test_a_build_is_compared_with_earlier_ones_of_its_name(store):
    for build, text in (("faq", "hello"), ("unrelated", "bye")):
        store.ensure(Writes(text), Silent())
        store.note_use(Writes(text), build)
    assert store.why(Writes("x"), "faq").old == "hello"
    assert store.why(Writes("x"), "unrelated").old == "bye"
    assert str(store.why(Writes("x"), "new")) == "not built before"
    collect(store, older_than=-1)
    assert not list((store.root / "builds").glob("*/*"))


def test_equal_outputs_of_different_inputs_have_one_digest(store):
    one, two = store.ensure(Writes("same"), Silent()), store.ensure(Writes("same", version=2), Silent())
    assert one.digest == two.digest
    assert one.root == two.root


def test_a_failed_run_leaves_nothing_to_believe(store):
    class Fails(Writes):
        def run(self, work, out, progress):
            super().run(work, out, progress)
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError):
        store.ensure(Fails("hello"), Silent())
    assert store.find(Writes("hello")) is None
    assert store.ensure(Writes("hello"), Silent()).path("sub", "file").is_file()


@pytest.mark.parametrize("damage", ["remove", "shorten", "change"])
def test_damage_is_named_and_not_used(store, damage):
    tree = store.ensure(Writes("hello"), Silent())
    file = tree.path("sub", "file")
    if damage == "remove":
        file.unlink()
    else:
        file.write_text("hell" if damage == "shorten" else "hallo")
    with pytest.raises(TunebuildError, match="sub/file is not what the build wrote"):
        store.find(Writes("hello"))


def test_verify_reads_every_byte(store):
    tree = store.ensure(Writes("hello"), Silent())
    store.verify(tree)
    tree.path("sub", "file").write_text("hellO")
    with pytest.raises(TunebuildError, match="sub/file"):
        store.verify(tree)


def test_a_file_is_read_again_only_if_it_may_have_changed(store, monkeypatch):
    """Looking a finished stage up costs no read, from the first time on."""
    monkeypatch.setattr("tunebuild.store.memo._RACY_NS", 0)
    tree = store.ensure(Writes("hello"), Silent())
    read = []
    monkeypatch.setattr(
        "tunebuild.store.memo.digest_file", lambda path: read.append(path) or digest_file(path)
    )
    assert store.find(Writes("hello")) == tree
    assert read == []
    file = tree.path("sub", "file")
    file.write_text("hello")
    assert store.find(Writes("hello")) == tree
    assert read == [file]
    status = file.stat()
    file.write_text("hallo")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a tool that hides its work
    with pytest.raises(TunebuildError, match=r"sub/file is not what the build wrote.*cache verify --remove"):
        store.find(Writes("hello"))


def test_a_killed_run_leaves_no_record_and_keeps_its_scratch(tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from tunebuild.store import Silent, Store
        class Dies:
            name, version = "dies", 1
            def own(self): return {}
            def upstream(self): return {}
            def run(self, work, out, progress):
                (work / "checkpoint").write_text("half")
                (out / "weights").write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)
        Store(Path(sys.argv[1])).ensure(Dies(), Silent())
        """
    )
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL

    class Resumes:
        name, version = "dies", 1

        def own(self):
            return {}

        def upstream(self):
            return {}

        def run(self, work, out, progress):
            assert not list(out.iterdir()), "half an output must not survive"
            (out / "weights").write_text((work / "checkpoint").read_text() + " and the rest")

    store = Store(tmp_path)
    assert store.find(Resumes()) is None
    assert store.ensure(Resumes(), Silent()).path("weights").read_text() == "half and the rest"


def test_two_processes_build_one_output(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from tunebuild.store import Silent, Store
        class Slow:
            name, version = "slow", 1
            def own(self): return {}
            def upstream(self): return {}
            def run(self, work, out, progress):
                time.sleep(0.5); (out / "x").write_text("x"); print("ran")
        Store(Path(sys.argv[1])).ensure(Slow(), Silent())
        """
    )
    argv = [sys.executable, "-c", script, str(tmp_path)]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert "".join(printed).count("ran") == 1


def test_memo_notices_every_change(store, tmp_path):
    file = tmp_path / "f"
    file.write_text("one")
    old = store.memo.digest(file)
    os.utime(file, ns=(1, 1))
    assert store.memo.digest(file) == old
    status = file.stat()
    file.write_text("two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same modification time
    assert store.memo.digest(file) != old


@given(json_values)
def test_canonical_json_has_one_spelling(value):
    shuffled = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert canonical_json(value) == canonical_json(shuffled)
    assert digest_json(value) == digest_json(shuffled)


@given(json_values, json_values)
def test_only_equal_values_have_no_differences(one, other):
    # 1 == 1.0 == True in Python, and a stage does not care which of them it gets.
    assert (not list(differences(one, other))) == (one == other)


def test_the_reason_is_the_smallest_difference_that_people_can_read(store):
    for text, nested in (("sha256:aa", {"b": 1}), ("sha256:bb", {"b": 2})):
        stage = Writes(text)
        stage.own = lambda text=text, nested=nested: {"digest": text, "nested": nested}
        store.ensure(stage, Silent())
    stage.own = lambda: {"digest": "sha256:cc", "nested": {"b": 1}}
    assert str(store.why(stage)) == "digest: aa -> cc"
    stage.own = lambda: {"digest": "sha256:cc", "nested": {"b": 3}}
    assert str(store.why(stage)) == "nested.b: 2 -> 3"


def test_scan_is_in_order_and_complete(tmp_path: Path):
    for name in ("b", "a/c", "a/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [f.path for f in scan(tmp_path).files] == ["a/b", "a/c", "b"]
