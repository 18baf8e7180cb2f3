"""A lock says what has moved."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from support.locks import DIGESTS, a_lock
from tunebuild.lock.record import SpecRecord
from tunebuild.lock.spec_lock import drift, split_pin


def test_drift_names_what_moved():
    new = a_lock(files={"a.jsonl": DIGESTS[2], "c.jsonl": DIGESTS[0]}, tunebuild="0.2.0")
    assert [str(d) for d in drift(a_lock(), new)] == [
        f"~ files.a.jsonl {'b' * 12} -> {'c' * 12}",
        f"- files.b.jsonl {'a' * 12}",
        f"+ files.c.jsonl {'a' * 12}",
        "~ tunebuild 0.1.0 -> 0.2.0",
    ]
    assert drift(new, new) == ()


def test_drift_of_a_field_is_a_sentence_and_comes_first():
    fields = {"tuning.epochs": 5, "description": "Other."}
    record = SpecRecord(digest=DIGESTS[4], fields=fields, defaults={"description": ""})
    new = a_lock(spec=record, files={"a.jsonl": DIGESTS[1]})
    assert [str(d) for d in drift(a_lock(), new)] == [
        "description: Other.; the lock was made without it",
        "name: no longer set; the lock was made with x",
        "tuning.epochs: 3 -> 5; the lock was made with 3",
        f"- files.b.jsonl {'a' * 12}",
    ]


@given(st.from_regex(r"[0-9][\w.+:~-]{0,20}", fullmatch=True))
def test_pins_split(version):
    assert split_pin(f"{version} {DIGESTS[0]}") == (version, "a" * 64)
