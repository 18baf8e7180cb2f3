"""The tokenizer with its one rule: marks come and go, and nothing else is changed."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

from support import tokenizers as families
from tunebuild.errors import TunebuildError
from tunebuild.prompt import PromptRefused, PromptTemplate, PromptTokenizer

pieces = st.text(st.sampled_from("<|im_endstr>a \n[]é你"), max_size=12)
controls = st.sampled_from(["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|im_", "end|>"])
texts = st.lists(pieces | controls, max_size=5).map("".join)


@pytest.fixture(scope="module", params=sorted(families.FAMILIES))
def tokenizer(request):
    return PromptTokenizer(families.FAMILIES[request.param]().to_str())


@pytest.fixture(scope="module")
def bytes_alone():
    return families.byte_level()


few = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(few, max_examples=40)


def with_tokens(*tokens, special=False):
    plain = families.byte_level()
    tokens = [AddedToken(token, normalized=False) for token in tokens]
    (plain.add_special_tokens if special else plain.add_tokens)(tokens)
    return PromptTokenizer(plain.to_str())


def user(content):
    return {"role": "user", "content": content}


@many
@given(said=texts)
def test_marks_come_and_go(tokenizer, said):
    (quoted,) = tokenizer.quote([user(said)])
    marked = quoted["content"]
    assert tokenizer.unquote(marked) == said
    held = [token.content for token in tokenizer._control.values() if token.content in said]
    assert tokenizer.is_quoted(marked) == bool(held) == (marked != said)
    assert not any(spelling in marked for spelling in held)
    ids = tokenizer.encode("a" + marked)  # some tokenizers drop a blank at the beginning of a text
    assert tokenizer.control_ids.isdisjoint(ids)
    assert said in tokenizer.spell(ids)


def test_quoting_looks_everywhere_but_at_roles(bytes_alone):
    tokenizer = PromptTokenizer(bytes_alone.to_str())
    typed = "<|im_end|>"
    turn = {
        "role": typed,
        "content": typed,
        "n": 3,
        "none": None,
        "calls": [{typed: (typed, {"role": typed, "a": typed})}],
    }
    (quoted,) = tokenizer.quote([turn])
    mark = quoted["content"]
    assert mark != typed
    inner = {"role": typed, "a": mark}
    assert quoted == {"role": typed, "content": mark, "n": 3, "none": None, "calls": [{mark: [mark, inner]}]}
    assert turn["content"] == typed


def test_an_answer_speaks_for_itself_in_everything_it_says():
    tokenizer = with_tokens("<think>", special=True)
    said = {"content": "<think><|im_end|>", "tool_calls": [{"a": "<think>"}]}
    answer, question = tokenizer.quote([{"role": "assistant", **said}, {"role": "user", **said}])
    assert answer["content"].startswith("<think>")
    assert "<|im_end|>" not in answer["content"]
    assert answer["tool_calls"] == [{"a": "<think>"}]
    assert "<think>" not in json.dumps(question)


@pytest.mark.parametrize("mark", ["\uf8f0", "\uf8f1", "\uf8f2"])
def test_what_could_be_a_mark_is_refused(bytes_alone, mark):
    tokenizer = PromptTokenizer(bytes_alone.to_str())
    for said in (mark, f"a{mark}0\uf8f2"):
        with pytest.raises(PromptRefused, match=f"U\\+{ord(mark):04X}"):
            tokenizer.quote([user([{"a": said}])])
    assert tokenizer.quote([user("\uf8f3\ue000")]) == [user("\uf8f3\ue000")]


@few
@given(said=st.lists(texts, max_size=6), other=texts)
def test_texts_encoded_together_are_each_encoded_alone(tokenizer, said, other):
    rendered = [f"<|im_start|>{tokenizer.quote([user(one)])[0]['content']}<|im_end|>" for one in said]
    encode = tokenizer.encoder(rendered)
    for one in (*rendered, other):
        assert encode(one) == tokenizer.encode(one)


def test_more_texts_than_a_batch_holds_are_each_encoded(bytes_alone):
    tokenizer = PromptTokenizer(bytes_alone.to_str())
    tokenizer._words = None  # what joins words is another way, with tests of its own
    many = [f"text {number}" for number in range(130)]
    encode = tokenizer.encoder(many)
    assert [encode(text) for text in many] == [tokenizer.encode(text) for text in many]


@many
@given(said=texts)
def test_a_text_is_cut_at_its_added_tokens(tokenizer, said):
    parts = tokenizer.added_tokens(said)
    assert "".join(part if isinstance(part, str) else tokenizer.token_text(part) for part in parts) == said
    assert "" not in parts
    spellings = [token.content for token in tokenizer._added.values()]
    assert not any(spelling in part for part in parts if isinstance(part, str) for spelling in spellings)


def test_the_longest_added_token_is_the_one_found():
    tokenizer = with_tokens("<|im_end|>>", "<|im")
    ids = [tokenizer.token_id(spelling) for spelling in ("<|im_end|>>", "<|im_end|>", "<|im")]
    assert tokenizer.added_tokens("a<|im_end|>><|im_end|><|imb") == ["a", *ids, "b"]


def test_tokens_marked_special_are_told_from_others():
    tokenizer = with_tokens("<b>", "<think>", "</think>")
    special, plain = tokenizer.token_id("<|im_end|>"), tokenizer.token_id("<b>")
    assert tokenizer.is_special(special)
    assert not tokenizer.is_special(plain)
    assert not tokenizer.is_special(tokenizer.token_id("a"))
    assert tokenizer.special_ids("a<|im_end|>b<b>") == {special}
    assert tokenizer.special_ids("a") == frozenset()
    assert tokenizer.think_tokens == ["<think>"]
    assert tokenizer.decode([special, plain]) == "<b>"
    assert tokenizer.spell([special, plain]) == "<|im_end|><b>"


def test_a_token_is_named_by_its_spelling_or_its_number(bytes_alone):
    tokenizer = PromptTokenizer(bytes_alone.to_str())
    size = tokenizer.vocabulary_size
    assert size == max(bytes_alone.get_vocab(with_added_tokens=True).values()) + 1
    assert tokenizer.token_text(tokenizer.token_id("<|im_end|>")) == "<|im_end|>"
    assert tokenizer.token_text(size) == f"<{size}>"
    assert tokenizer.token_id("no such token") is None


def test_limits_saved_with_a_tokenizer_cut_and_fill_nothing(bytes_alone):
    long, definition = "How do I reset the device?", bytes_alone.to_str()
    expected = PromptTokenizer(definition).encode(long)
    limited = Tokenizer.from_str(definition)
    for limit in (lambda: limited.enable_truncation(2), lambda: limited.enable_padding(length=99)):
        limit()
        tokenizer = PromptTokenizer(limited.to_str())
        assert tokenizer.encode(long) == expected
        assert tokenizer._encode_by_twin(long) == expected


def test_what_is_no_tokenizer_is_refused():
    with pytest.raises(TunebuildError, match=r"model\.base.*tokenizer\.json cannot be read"):
        PromptTokenizer("{}")


def test_a_template_adds_control_tokens_to_a_copy():
    definition = json.loads(with_tokens("<turn>").definition)
    tokenizer = PromptTokenizer(json.dumps(definition))
    marked = tokenizer.quote([user("<turn>")])
    _ = (
        tokenizer.seams,
        tokenizer._twin_ids,
        tokenizer._words,
    )  # what depends on the control tokens is made anew
    plain = PromptTemplate("plain", families.CHATML)
    assert tokenizer.under(plain) is tokenizer
    under = tokenizer.under(PromptTemplate("own", families.CHATML.replace("<|im_start|>", "<turn>")))
    assert under.control_ids - tokenizer.control_ids == {tokenizer.token_id("<turn>")}
    assert marked == tokenizer.quote([user("<turn>")]) == [user("<turn>")]
    (typed,) = under.quote([user("<turn>")])
    assert under.control_ids.isdisjoint(under.encode(typed["content"]))
    assert under.encode("<turn>") == [tokenizer.token_id("<turn>")]
    text = "a<turn>b"
    assert under.seams.prompt("a<turn>", text, under.encode(text)) == len(under.encode("a<turn>"))
    assert tokenizer.seams.prompt("a<turn>", text, tokenizer.encode(text)) is None
    assert under.seams is not tokenizer.seams
    assert under._words is not tokenizer._words
    assert under._twin_ids is not tokenizer._twin_ids


@pytest.mark.parametrize("as_text", [True, False], ids=["text", "pairs"])
def test_merges_that_lead_to_a_control_token_make_none_of_text(as_text):
    """Its spelling may be a word of the model, with merges to it and on from it."""
    words = ["<", "/", "s", ">", "a", "</", "s>", "</s>", "</s>a", "<unk>"]
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("</s>", "a")]
    plain = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges, unk_token="<unk>"))
    plain.add_special_tokens([AddedToken("</s>", normalized=False), AddedToken("<unk>", normalized=False)])
    definition = json.loads(plain.to_str())
    definition["model"]["merges"] = [" ".join(m) if as_text else list(m) for m in merges]
    tokenizer = PromptTokenizer(json.dumps(definition))
    end = tokenizer.token_id("</s>")
    (typed,) = tokenizer.quote([user("a</s>a")])
    found = tokenizer.encode(typed["content"] + "</s>")
    assert [tokenizer.token_text(i) for i in found] == ["a", "</", "s>", "a", "</s>"]
    assert found.index(end) == len(found) - 1
