"""A lock file reads and diffs well, and holds each pin of several specs once."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.locks import DIGESTS, a_lock, a_runtime
from tunebuild.errors import TunebuildError
from tunebuild.lock.lock_file import joined, read_locks, split, write_locks
from tunebuild.lock.record import SpecRecord

HERE = Path("/home/team/work/space/tunebuild.lock")
OVERLAYS = {"overlays/eu.yaml": {"../faq.jsonl": DIGESTS[0]}, "base.yaml": {"faq.jsonl": DIGESTS[0]}}


def text_of(specs, directory):
    path = directory / "tunebuild.lock"
    write_locks(joined(specs, path), path)
    return path.read_text()


def test_it_reads_back_and_is_written_the_same_way_every_time(tmp_path):
    path = tmp_path / "spec.lock"
    assert read_locks(path) is None
    write_locks(joined({"spec.yaml": a_lock()}, path), path)
    first = path.read_text()
    assert read_locks(path).of(tmp_path / "spec.yaml") == a_lock()
    assert read_locks(path).of(tmp_path / "other.yaml") is None
    write_locks(joined({"spec.yaml": a_lock(files=dict(sorted(a_lock().files.items())))}, path), path)
    assert path.read_text() == first
    assert [p.name for p in tmp_path.iterdir()] == ["spec.lock"]


def test_one_change_is_one_line(tmp_path):
    def lines(**changes):
        one = a_lock(**changes)
        return text_of({"a.yaml": one, "b.yaml": one}, tmp_path).splitlines()

    before = lines()
    wheels = {**a_runtime().wheels, "torch": f"2.14.0 {DIGESTS[2]}"}
    for after in (
        lines(runtime=a_runtime(wheels=wheels)),
        lines(files={**a_lock().files, "b.jsonl": DIGESTS[2]}),
    ):
        assert len(before) == len(after)
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


def test_pins_that_specs_share_stand_once(tmp_path):
    text = text_of({name: a_lock(files=files) for name, files in OVERLAYS.items()}, tmp_path)
    for digest in (*a_runtime().wheels.values(), *a_runtime().packages.values()):
        assert text.count(f'"{digest}"') == 1
    found = json.loads(text)
    assert found["files"] == {"faq.jsonl": DIGESTS[0]}
    assert found["models"].keys() == {"org/m@main"}
    assert list(found["specs"]) == sorted(OVERLAYS)
    locks = read_locks(tmp_path / "tunebuild.lock")
    assert {name: locks.of(tmp_path / name).files for name in OVERLAYS} == OVERLAYS


def test_runtimes_share_the_pins_that_are_the_same(tmp_path):
    cuda = a_runtime(device="cuda", wheels={**a_runtime().wheels, "torch": f"2.13.0 {DIGESTS[4]}"})
    specs = {"cpu.yaml": a_lock(), "cuda.yaml": a_lock(runtime=cuda)}
    found = json.loads(text_of(specs, tmp_path))
    assert list(found["wheels"]) == ["attrs", "torch (linux/amd64 cpu)", "torch (linux/amd64 cuda)"]
    assert found["runtimes"]["linux/amd64 cuda"]["wheels"] == ["attrs", "torch (linux/amd64 cuda)"]
    assert read_locks(tmp_path / "tunebuild.lock").of(tmp_path / "cuda.yaml").runtime == cuda


_names = st.sampled_from(["a.jsonl", "../b.jsonl", "rows/c.jsonl", "../../d/e.jsonl", "/abs/f.jsonl"])
_pins = st.dictionaries(
    st.sampled_from(["libc6", "torch", "attrs"]), st.sampled_from([f"1 {DIGESTS[0]}", f"2 {DIGESTS[1]}"])
)
_runtimes = st.builds(
    lambda device, platform, wanted, packages, wheels: a_runtime(
        device=device, platform=platform, requirements=wanted, packages=packages, wheels=wheels
    ),
    st.sampled_from(["cpu", "cuda"]),
    st.sampled_from(["linux/amd64", "linux/arm64"]),
    st.sampled_from([("vllm==1",), ("torch>=2", "peft"), ("torch[x]>=2",)]),
    _pins,
    _pins,
)
_locks = st.builds(
    lambda names, template, base, runtime, epochs: a_lock(
        spec=SpecRecord(digest=DIGESTS[0], fields={"tuning.epochs": epochs}, defaults={"merge": "auto"}),
        files=dict.fromkeys(names, DIGESTS[0]),
        template={template: DIGESTS[1]} if template else {},
        model={"base": base, "files": {"config.json": DIGESTS[2]}},
        runtime=runtime,
    ),
    st.sets(_names),
    st.sampled_from(["", "chatml", "./chatml", "../t/prompt.jinja"]),
    st.sampled_from(["./base", "../base", "/models/base", "oci://r.example/x:1"]),
    _runtimes,
    st.integers(1, 3),
)
_specs = st.dictionaries(
    st.sampled_from(["a.yaml", "x/b.yaml", "x/y/c.yaml", "../d.yaml", "../z/e.yaml"]), _locks, min_size=1
)


@given(_specs, st.randoms(use_true_random=False))
def test_specs_joined_and_split_are_what_they_were_in_any_order(specs, order):
    lock = joined(specs, HERE)
    assert split(lock, HERE) == specs
    names = list(specs)
    order.shuffle(names)
    again = joined({name: specs[name] for name in names}, HERE)
    assert again.model_dump_json() == lock.model_dump_json()
    assert joined(split(lock, HERE), HERE).model_dump_json() == lock.model_dump_json()


@pytest.mark.parametrize(
    "text", ["", "{}", "<<<<<<< HEAD\n", '{"lockVersion": 2}', "[1]", '{"files": 1}', "\x00"]
)
def test_a_damaged_lock_is_named(tmp_path, text):
    path = tmp_path / "spec.lock"
    path.write_text(text)
    with pytest.raises(TunebuildError, match=r"spec\.lock is not a lock"):
        read_locks(path)


def test_a_pin_that_a_merge_lost_is_named(tmp_path):
    value = json.loads(text_of({"a.yaml": a_lock()}, tmp_path))
    kinds = ("files", "templates", "models", "datasets", "runtimes", "packages", "wheels")
    for kind in kinds:
        name = random.Random(0).choice(sorted(value[kind]))
        rest = {key: one for key, one in value[kind].items() if key != name}
        (tmp_path / "tunebuild.lock").write_text(json.dumps({**value, kind: rest}))
        with pytest.raises(TunebuildError, match=f"names '{name}', which is not pinned"):
            read_locks(tmp_path / "tunebuild.lock")


def test_a_newer_format_is_told_from_damage(tmp_path):
    (tmp_path / "spec.lock").write_text('{"lockVersion": 3}')
    with pytest.raises(TunebuildError, match=r"has format 3.*a newer one"):
        read_locks(tmp_path / "spec.lock")


def test_pins_of_the_first_format_are_read(tmp_path):
    value = a_lock().model_dump(mode="json", exclude={"spec"})
    (tmp_path / "spec.lock").write_text(json.dumps({"lockVersion": 1, **value}))
    assert read_locks(tmp_path / "spec.lock").of(tmp_path / "spec.yaml") == a_lock(spec=None)
