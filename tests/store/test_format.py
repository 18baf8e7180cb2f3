"""What a store holds, byte for byte: stores that exist are read by later versions."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass

import pytest

from tunebuild.store import Silent, Store, canonical_json, digest_file, digest_json
from tunebuild.store.atomic import write_atomically
from tunebuild.store.stage import key_of


@dataclass
class Writes:
    """Writes two files, one of which only its owner may read."""

    name: str = "writes"
    version: int = 3

    def own(self):
        return {"text": "\u00e9", "many": [1, 2.5, None, True]}

    def upstream(self):
        return {}

    def run(self, work, out, progress):
        progress.say("writing")
        (out / "open").write_text("open")
        (out / "closed").write_text("closed")
        (out / "closed").chmod(0o600)


class Heard(Silent):
    """Keeps what a stage says."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


KEYED = '{"inputs":{"many":[1,2.5,null,true],"text":"\u00e9"},"version":3}'


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_equal_values_have_one_spelling_and_values_without_one_are_refused():
    assert canonical_json({"b": [1, "\u00e9"], "a": None}) == '{"a":null,"b":[1,"\u00e9"]}'.encode()
    assert digest_json({"b": 1, "a": 2}) == sha(b'{"a":2,"b":1}')
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"a": float("nan")})


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_s_digest_is_that_of_its_bytes(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert digest_file(tmp_path / "file") == sha(data)


@pytest.mark.parametrize(
    "content", ["caf\u00e9\n", "caf\u00e9\n".encode(), lambda p: p.write_text("caf\u00e9\n")]
)
def test_a_write_replaces_the_file_whole(tmp_path, content):
    (tmp_path / "file").write_text("a longer text that was there before\n")
    write_atomically(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == "caf\u00e9\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    def fails(path):
        path.write_text("half")
        raise OSError("no")

    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="no"):
        write_atomically(tmp_path / "file", fails)
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_record_says_what_an_output_was_made_from(tmp_path):
    store, heard = Store(tmp_path), Heard()
    tree = store.ensure(Writes(), heard)
    assert heard.said == ["writing"]
    key = key_of(Writes())
    assert (key.stage, key.digest) == ("writes", sha(KEYED.encode()))
    (record,) = (tmp_path / "records" / "writes").iterdir()
    assert json.loads(record.read_text("utf-8")) == {
        "stage": "writes",
        "key": key.digest,
        "output": tree.digest,
        "inputs": {"text": "\u00e9", "many": [1, 2.5, None, True]},
    }
    assert [(file.path, file.size, file.digest) for file in tree.files] == [
        ("closed", 6, sha(b"closed")),
        ("open", 4, sha(b"open")),
    ]


def test_outputs_have_one_mode_whatever_wrote_them(tmp_path):
    tree = Store(tmp_path).ensure(Writes(), Silent())
    assert {(tree.root / file.path).stat().st_mode & 0o777 for file in tree.files} == {0o644}
