"""The twin: a control token's own spelling is text to it, whichever kind of model would make the token."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from tunebuild.prompt._twin import make_twin, spells

CONTROL, RESPELT = "<e>", "\uf8f10\uf8f2"
_PIECES = ["<unk>", "a", "<", "e", ">", "<e", CONTROL]
_IDS = {piece: number for number, piece in enumerate(_PIECES)}
MODELS = {
    "bpe": lambda: models.BPE(_IDS, [("<", "e"), ("<e", ">")], unk_token="<unk>"),
    "unigram": lambda: models.Unigram([(piece, -float(len(piece) < 3)) for piece in _PIECES], 0),
    "words": lambda: models.WordLevel(_IDS, unk_token="<unk>"),
}


def tokenizer_of(kind, *, normalized=False, normalizer=None):
    made = Tokenizer(MODELS[kind]())
    made.normalizer = normalizer
    made.add_special_tokens([AddedToken(CONTROL, normalized=normalized)])
    return made


@pytest.mark.parametrize("as_text", [False, True], ids=["merges-in-pairs", "merges-as-text"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_control_token_comes_of_its_new_spelling_alone(kind, as_text):
    definition = json.loads(tokenizer_of(kind).to_str())
    if as_text and kind == "bpe":  # as files of older versions have them
        definition["model"]["merges"] = [" ".join(merge) for merge in definition["model"]["merges"]]
    twin = make_twin(json.dumps(definition), {CONTROL: RESPELT})
    assert twin.encode(RESPELT).ids == [_IDS[CONTROL]]
    typed = twin.encode(f"a{CONTROL}a" if kind != "words" else CONTROL).ids
    assert typed
    assert _IDS[CONTROL] not in typed
    assert twin.encode("a").ids == [_IDS["a"]]


@pytest.mark.parametrize("kind", ["bpe", "words"])
def test_the_token_of_unknown_text_keeps_its_place_under_a_new_spelling(kind):
    plain = tokenizer_of(kind)
    plain.add_special_tokens(["<unk>"])
    twin = make_twin(plain.to_str(), {"<unk>": RESPELT})
    assert twin.encode("z").ids == plain.encode("z").ids == [_IDS["<unk>"]]


def test_a_new_spelling_is_found_where_texts_are_normalized():
    plain = tokenizer_of("bpe", normalized=True, normalizer=normalizers.Prepend("\u2581"))
    twin = make_twin(plain.to_str(), {CONTROL: RESPELT})
    assert twin.encode(f"a{RESPELT}").ids[-1] == _IDS[CONTROL]


def test_a_model_spells_a_token_by_itself_or_does_not():
    def says(tokenizer, text, piece):
        return spells(tokenizer, AddedToken(text), _IDS[piece])

    bpe = Tokenizer(MODELS["bpe"]())
    assert says(bpe, CONTROL, CONTROL)
    assert not says(bpe, CONTROL, "a")
    bpe.normalizer = normalizers.Lowercase()
    assert says(bpe, "<E>", CONTROL)
    words = Tokenizer(MODELS["words"]())
    assert not says(words, "a e", "e")
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert says(words, "a e", "e")
