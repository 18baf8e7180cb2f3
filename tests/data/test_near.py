"""What is nearly the same is found, said and not trained on twice; what is not, is left alone."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import tokenizers as families
from tunebuild.data.near import PERMUTATIONS, first_near, joined_labels, signatures
from tunebuild.data.prompt_source import build_renderer
from tunebuild.data.rows import RowSource
from tunebuild.data.stage import DataStage
from tunebuild.errors import TunebuildError
from tunebuild.spec.data import DataSource, DataSpec, EvalSplit
from tunebuild.spec.model import PromptSpec
from tunebuild.store import Silent, Store, digest_file

WORDS = [f"{a}{b}" for a in "bcdfglmnprst" for b in ("ara", "eno", "ilu", "oma")]
LONG = " ".join(random.Random(1).choices(WORDS, k=80))


def triples(text):
    words = text.split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def edited(text, count, seed):
    words, draw = text.split(), random.Random(seed)
    for _ in range(count):
        words[draw.randrange(len(words))] = draw.choice(WORDS)
    return " ".join(words)


@settings(max_examples=50, deadline=None)
@given(edits=st.integers(0, 40), seed=st.integers(0, 10**6))
def test_signatures_estimate_the_share_of_common_triples(edits, seed):
    other = edited(LONG, edits, seed)
    one, two = triples(LONG), triples(other)
    pair = signatures([LONG, other])
    share = len(one & two) / len(one | two)
    assert abs((pair[0] == pair[1]).mean() - share) < 4.5 * (0.25 / PERMUTATIONS) ** 0.5
    assert (edits > 0) or (pair[0] == pair[1]).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.5, 0.7, 0.8, 0.95, 1.0]))
def test_minhash_join_equals_comparing_all_pairs(seed, threshold):
    draw = random.Random(seed)
    originals = [" ".join(draw.choices(WORDS, k=60)) for _ in range(12)]
    texts = [edited(draw.choice(originals), draw.choice([0, 0, 1, 2, 5]), draw.random()) for _ in range(60)]
    found = signatures(texts)
    alike = (found[:, None] == found[None]).mean(axis=2) >= threshold
    near = first_near(found, threshold)
    assert all(other < i and alike[i, other] for i, other in enumerate(near) if other >= 0)
    expected = np.array([alike[i, :i].any() for i in range(len(texts))])
    assert ((near >= 0) == expected).mean() > 0.93


def test_texts_that_are_all_alike_and_none_at_all():
    assert first_near(signatures([LONG] * 500), 0.8).tolist() == [-1] + [0] * 499
    assert first_near(np.zeros((0, PERMUTATIONS), np.uint16), 0.8).tolist() == []


def test_scripts_without_spaces_are_compared_by_characters():
    text = "".join(chr(0x4E00 + i * 7 % 3000) for i in range(60))
    near = first_near(signatures([text, text[:-1] + "\u4e01", text[::-1]]), 0.8)
    assert near.tolist() == [-1, 0, -1]


def test_groups_of_near_texts_become_one():
    assert joined_labels(np.array([0, 1, 0, 3, 4]), np.array([-1, -1, -1, 2, 1])).tolist() == [0, 1, 0, 0, 1]


def test_signatures_are_the_same_in_another_process():
    code = f"from tunebuild.data.near import signatures; print(signatures([{LONG!r}]).tolist())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == signatures([LONG]).tolist()


@pytest.fixture
def stage(tmp_path):
    base = families.save(families.byte_level(), tmp_path / "base")
    renderer = build_renderer(PromptSpec(), base, tmp_path)

    def make(train, held=(), **data):
        files = []
        for name, texts in (("train.jsonl", train), ("held.jsonl", held)):
            rows = ({"question": q, "answer": a} for q, a in texts)
            (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
            files.append(tmp_path / name)
        trained, held_out = (RowSource(file, file.name, "qa") for file in files)
        return DataStage(
            data=DataSpec(train=(DataSource(path="train.jsonl"),), **data),
            train=(trained,),
            held_out=(held_out,) if held else (),
            file_digests=tuple(map(digest_file, files if held else files[:1])),
            renderer=renderer,
            tokenizer_dir=base,
            max_length=2000,
            seed=0,
            vocabulary_size=renderer.tokenizer.vocabulary_size,
        )

    return make


def rejects(tree):
    return [json.loads(line) for line in tree.path("rejects.jsonl").read_text().splitlines()]


def test_near_rows_are_used_once_and_named_within_each_part(stage, tmp_path):
    other = " ".join(random.Random(2).choices(WORDS, k=80))
    third = " ".join(random.Random(3).choices(WORDS, k=80))
    train = [(LONG, "Yes."), (other, "No."), (edited(LONG, 1, 5), "Yes."), (LONG.upper(), "yes")]
    held = [(third, "Perhaps."), (edited(third, 1, 6), "Perhaps.")]
    tree = Store(tmp_path / "store").ensure(stage(train, held, deduplicate="near"), Silent())
    assert [(r["file"], r["line"], r["code"], r["reason"]) for r in rejects(tree)] == [
        ("train.jsonl", 3, "near-duplicate", "says nearly the same as train.jsonl:1"),
        ("train.jsonl", 4, "duplicate", "says the same as train.jsonl:1"),
        ("held.jsonl", 2, "near-duplicate", "says nearly the same as held.jsonl:1"),
    ]
    assert json.loads(tree.path("stats.json").read_text())["rows"] == {"train": 2, "eval": 1, "rejected": 3}


def test_near_questions_leak(stage, tmp_path):
    train, held = [(LONG, "Yes."), ("Something else?", "No.")], [(edited(LONG, 1, 5), "An other answer.")]
    store = Store(tmp_path / "store")
    with pytest.raises(TunebuildError, match=r"train.jsonl:1 asks nearly what held.jsonl:1 asks"):
        store.ensure(stage(train, held, deduplicate="near"), Silent())
    tree = store.ensure(stage(train, held, deduplicate="near", eval=EvalSplit(on_leak="drop")), Silent())
    assert [(r["line"], r["code"]) for r in rejects(tree)] == [(1, "leaked")]
    assert not rejects(store.ensure(stage(train, held, deduplicate="exact"), Silent()))


def test_near_questions_are_held_out_together(stage, tmp_path):
    draw = random.Random(7)
    asked = [" ".join(draw.choices(WORDS, k=60)) for _ in range(8)]
    train = [(edited(q, 1, n), " ".join(draw.choices(WORDS, k=60))) for n in range(5) for q in asked]
    store = Store(tmp_path / "store")

    def held(deduplicate):
        made = stage(train, deduplicate=deduplicate, eval=EvalSplit(fraction=0.1))
        return json.loads(store.ensure(made, Silent()).path("stats.json").read_text())["rows"]

    assert held("folded") == {"train": 36, "eval": 4, "rejected": 0}
    # The five ways to put a question go together.
    together = held({"near": 0.7})
    assert together["rejected"] == 0
    assert together["eval"] == 5
