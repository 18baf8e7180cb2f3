"""A store is listed to the byte, and cleaning it never takes what a build needs."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tunebuild.cli import app
from tunebuild.errors import TunebuildError
from tunebuild.store import Silent, Store, inventory, key_of

DAY = 86_400


@dataclass
class Writes:
    """A stage that writes a file of a size; ``salt`` is part of its key only."""

    size: int
    salt: int = 0
    name: str = "writes"
    version: int = 1

    def own(self):
        return {"size": self.size, "salt": self.salt}

    def upstream(self):
        return {}

    def run(self, work, out, progress):
        (out / "file").write_bytes(b"x" * self.size)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def make(store, *stages, age=0.0):
    for stage in stages:
        store.ensure(stage, Silent())
        used = time.time() - age
        os.utime(store.root / "records" / "writes" / f"{key_of(stage).digest[7:]}.json", (used, used))


def run(store, *arguments):
    done = CliRunner().invoke(app, ["cache", *arguments, "--store", str(store.root)], standalone_mode=False)
    if done.exception and not isinstance(done.exception, TunebuildError):
        raise done.exception
    return done


def test_listing_counts_every_output_once(store):
    make(store, Writes(1000), Writes(1000, salt=1), Writes(50))
    kept = inventory.records(store)
    assert sorted(k.size for k in kept) == [50, 1000, 1000]
    assert len({k.tree for k in kept}) == 2
    assert "3 stages, 0.0 MB" in run(store, "ls").stderr
    assert '"size": 1000' in run(store, "ls", "--json").stdout


def test_the_listing_names_the_specs_that_use_a_stage(store):
    shared, alone, unused = Writes(10), Writes(20), Writes(30)
    make(store, shared, alone, unused)
    for stage, name in ((shared, "support"), (shared, "faq"), (alone, "faq")):
        store.note_use(stage, name)
    lines = {line.split()[0]: line for line in run(store, "ls").stdout.splitlines()}
    ends = {stage.size: lines[str(key_of(stage))].split("  ")[-1] for stage in (shared, alone)}
    assert ends == {10: "faq, support", 20: "faq"}
    assert "faq" not in lines[str(key_of(unused))]
    rows = json.loads(run(store, "ls", "--json").stdout)["records"]
    assert {row["size"]: row["specs"] for row in rows} == {10: ["faq", "support"], 20: ["faq"], 30: []}


def test_finding_a_stage_counts_as_use(store):
    make(store, Writes(10), age=40 * DAY)
    make(store, Writes(20), age=20 * DAY)
    assert [k.size for k in inventory.records(store)] == [20, 10]
    store.find(Writes(10))
    assert [k.size for k in inventory.records(store)] == [10, 20]


def test_old_stages_go_and_their_outputs_with_them(store):
    make(store, Writes(1000), Writes(30, salt=1), age=40 * DAY)
    make(store, Writes(30), age=DAY)
    dry = inventory.collect(store, older_than=30 * DAY, dry_run=True)
    assert len(inventory.records(store)) == 3
    done = inventory.collect(store, older_than=30 * DAY)
    assert dry.keys == done.keys
    assert dry.freed == done.freed == 1000  # the other output is still named by a younger stage
    assert store.find(Writes(1000)) is None
    assert store.find(Writes(30)).path("file").stat().st_size == 30
    store.ensure(Writes(1000), Silent())


def test_the_least_recently_used_go_first(store):
    for number, size in enumerate((100, 200, 300)):
        make(store, Writes(size), age=(number + 1) * DAY)
    inventory.collect(store, max_bytes=350)
    assert [k.size for k in inventory.records(store)] == [100, 200]


def test_a_running_build_keeps_its_work(store):
    stage = Writes(5)
    make(store, stage, age=40 * DAY)
    key = key_of(stage)
    work = store.root / "work" / str(key) / "scratch"
    work.mkdir(parents=True)
    old = time.time() - 3 * DAY
    for path in (work, work.parent):
        os.utime(path, (old, old))
    with (store.root / "locks" / f"{key}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert inventory.collect(store, older_than=DAY) == inventory.Collected((), (), 0)
        assert work.is_dir()
        assert store.find(stage)
    os.utime(inventory.records(store)[0].path, (old, old))
    assert inventory.collect(store, older_than=DAY).keys
    assert not work.exists()


def test_a_damaged_byte_is_found_and_can_be_forgotten(store):
    make(store, Writes(1000), Writes(20))
    path = store.find(Writes(1000)).path("file")
    path.chmod(0o644)
    path.write_bytes(b"y" + b"x" * 999)
    done = run(store, "verify")
    assert isinstance(done.exception, TunebuildError)
    assert str(path) in str(done.exception)
    assert "verify --remove" in str(done.exception)
    assert run(store, "verify", "--remove").exception is None
    assert run(store, "verify").exception is None
    assert store.find(Writes(1000)) is None
    assert store.find(Writes(20)) is not None


@pytest.mark.parametrize("name", ["zzz", "aaa"])
def test_a_file_too_many_is_damage(store, name):
    make(store, Writes(9))
    tree = store.find(Writes(9))
    (tree.root / name).write_text("stray")
    with pytest.raises(TunebuildError, match=name):
        store.verify(tree)


def test_explain_takes_the_start_of_a_key(store):
    make(store, Writes(7), Writes(8))
    key = next(k.key for k in inventory.records(store) if k.size == 8)
    assert '"size": 8' in run(store, "explain", key[:14]).stdout
    assert "2 records start with" in str(run(store, "explain", "writes").exception)
    assert "no record starts with" in str(run(store, "explain", "nothing").exception)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 2), st.integers(0, 60)), max_size=8),
    st.none() | st.integers(0, 60),
    st.none() | st.integers(0, 1500),
)
def test_after_any_collection_every_record_loads(tmp_path_factory, stages, days, most):
    store = Store(tmp_path_factory.mktemp("store"))
    for size, salt, age in stages:
        make(store, Writes(size, salt), age=age * DAY)
    inventory.collect(store, older_than=None if days is None else days * DAY + 1, max_bytes=most)
    for size, salt, _ in stages:
        if tree := store.find(Writes(size, salt)):
            store.verify(tree)
            assert tree.path("file").stat().st_size == size
    left = inventory.records(store)
    assert sum({k.tree: k.size for k in left}.values()) <= (10**9 if most is None else most)
    assert not inventory.unnamed(store)
