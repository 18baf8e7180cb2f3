"""Ids that are put together from words are the ids of the text, or words are not used."""

from __future__ import annotations

import json
import pickle
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from support import tokenizers as families
from tunebuild.prompt import PromptTokenizer
from tunebuild.prompt.seams import Seams
from tunebuild.prompt.words import _SPLITS, Words, find_words, mark_cuts

# What the rules for splitting turn on: letters, spaces, contractions, numbers, line ends, marks, controls.
text = st.lists(
    st.one_of(
        st.sampled_from(
            ["a", "Z", " ", "  ", " b", "'s", "'LL", "s", "1", "23", "\n", "\r\n", "\t", "\u00e9", "e\u0301",
             "\u0301", "\u4f60", "\u017f", ".", "-", "<|im_end|>", "<|im_", "end|>", "hello", " device"]
        ),
        st.characters(blacklist_categories=("Cs", "Co"), blacklist_characters="\x00"),
    ),
    max_size=30,
).map("".join)  # fmt: skip


def splitting(pattern):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        show_progress=False,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([*families.TEXTS, "it's don't we'll hello device a b Z s"] * 3, trainer)
    return tokenizer


KINDS = {"gpt2": families.byte_level(), **{f"split-{len(p)}": splitting(p) for p in sorted(_SPLITS)}}


def words_of(tokenizer):
    added = tokenizer.get_added_tokens_decoder()
    return find_words(tokenizer, tokenizer.to_str(), added, Seams(tokenizer, added))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=400, deadline=None)
@given(texts=st.lists(text, min_size=1, max_size=4))
@example(texts=["a b", "a  b", "it's b", "a 1 b", " a b ", ""])
def test_joined_ids_are_the_texts_ids(kind, texts):
    tokenizer = KINDS[kind]
    words = words_of(tokenizer)
    assert words is not None
    assert words.encode(texts) == [tokenizer.encode(t, add_special_tokens=False).ids for t in texts]


def test_words_are_remembered_until_twice_as_many_came(monkeypatch):
    tokenizer = KINDS["gpt2"]
    monkeypatch.setattr("tunebuild.prompt.words._MOST", 3)
    words, alone = words_of(tokenizer), Words(tokenizer, Seams(tokenizer, {}), ())
    assert words._control is not None
    for number in range(20):
        one = [f"hello {number} device <|im_end|> {'x' * 50}<|im_end|>", " a", "a", ""]
        expected = [tokenizer.encode(t, add_special_tokens=False).ids for t in one]
        assert words.encode(one) == alone.encode(one) == expected
        assert len(words._known) <= 3 + 5


@given(st.lists(text, min_size=1, max_size=4))
def test_cuts_are_behind_visible_signs_and_around_controls(texts):
    control = "<|im_end|>"
    for whole, marked in zip(texts, mark_cuts(texts, "\0", [control]), strict=True):
        assert marked.replace("\0", "") == whole
        assert marked.count(f"\0{control}\0") == whole.count(control)
        for piece in marked.split(f"\0{control}\0"):
            parts = piece.split("\0")
            assert all(after[0] == " " for after in parts[1:])
            assert all(re.search(r"(^|[!-~\w])$", before) for before in parts[:-1])
            assert not any(re.search(r"[!-~\w] ", part) for part in parts)


@pytest.mark.parametrize("family", [f for f in families.FAMILIES if f != "byte-level"])
def test_tokenizers_of_other_kinds_have_no_word_cache(family):
    assert words_of(families.FAMILIES[family]()) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(normalizer={"type": "Lowercase"}),
        lambda d: d["model"].update(dropout=0.1),
        lambda d: d["pre_tokenizer"].update(use_regex=False),
        lambda d: d.update(pre_tokenizer={"type": "Whitespace"}),
        lambda d: d.update(pre_tokenizer=None),
    ],
)
def test_tokenizers_that_see_context_have_no_word_cache(change):
    definition = json.loads(families.byte_level().to_str())
    change(definition)
    assert words_of(Tokenizer.from_str(json.dumps(definition))) is None


@pytest.mark.parametrize(
    ("spelling", "flags"),
    [("a b", {}), (" x", {}), ("x ", {}), ("<y>", {"lstrip": True}), ("<y>", {"single_word": True})],
)
def test_added_tokens_that_a_cut_could_break_have_none(spelling, flags):
    tokenizer = families.byte_level()
    tokenizer.add_tokens([AddedToken(spelling, normalized=False, **flags)])
    assert words_of(tokenizer) is None


def test_words_that_differ_from_whole_texts_are_given_up():
    tokenizer = PromptTokenizer(families.byte_level().to_str())
    expected = tokenizer.encode("How do I?")

    class Wrong:
        def encode(self, texts):
            return [[0] for _ in texts]

    tokenizer._words = Wrong()
    assert tokenizer.encoder(["How do I?"])("How do I?") == expected
    assert tokenizer._words is None


def test_workers_start_with_empty_word_caches():
    words = words_of(families.byte_level())
    words.encode(["some words"])
    again = pickle.loads(pickle.dumps(words))
    assert again._known == {}
    assert again.encode(["some words"]) == words.encode(["some words"])
