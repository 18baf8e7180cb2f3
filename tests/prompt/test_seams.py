"""Prompts found in the ids of a longer text are what encoding them gives, or are not found."""

from __future__ import annotations

import pickle
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from support import tokenizers as families
from tunebuild import resources
from tunebuild.prompt import PromptRefused, PromptTemplate, PromptTokenizer, Renderer, special_tokens
from tunebuild.prompt.supervision import Supervision

TEMPLATES = sorted(p.stem for p in resources.path("templates", "prompts").glob("*.jinja"))
# White space, marks that other tokens are made of, and what is in no vocabulary.
pieces = st.text(
    st.one_of(
        st.sampled_from(" \n\t<|>'[]/_\u2581aAs09é你🧭"),
        st.characters(blacklist_categories=("Cs", "Co"), blacklist_characters="\x00"),
    ),
    max_size=30,
)
said = pieces.filter(str.strip)


@pytest.fixture(scope="module", params=families.PARAMETERS)
def directory(request, tmp_path_factory):
    return families.save(families.FAMILIES[request.param](), tmp_path_factory.mktemp(request.param))


def tokenizer_of(directory, **flags):
    tokenizer = families.byte_level()
    tokenizer.add_special_tokens([AddedToken("<|x|>", **flags)])
    return PromptTokenizer(tokenizer.to_str())


@cache
def make_renderer(directory, template, *, slow=False):
    source = resources.path("templates", "prompts", f"{template}.jinja").read_text()
    tokenizer = PromptTokenizer((directory / "tokenizer.json").read_text())
    renderer = Renderer(PromptTemplate(template, source, special_tokens(directory)), tokenizer)
    if slow:
        renderer.supervision.seams = None
    return renderer


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=15, deadline=None)
@given(pairs=st.lists(st.tuples(said, said), min_size=1, max_size=3))
def test_samples_are_the_same_with_and_without(directory, template, pairs):
    quick, slow = make_renderer(directory, template), make_renderer(directory, template, slow=True)
    messages = [
        {"role": role, "content": content}
        for pair in pairs
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]
    try:
        expected = slow.examples(messages)
    except PromptRefused as refusal:
        with pytest.raises(PromptRefused) as raised:
            quick.examples(messages)
        assert raised.value.diagnostics == refusal.diagnostics
        return
    assert quick.examples(messages) == expected
    assert quick.supervision.seams is not None


@settings(max_examples=100, deadline=None)
@given(left=pieces, right=pieces, tail=pieces, more=pieces)
@example(left="", right="", tail="", more="")
def test_a_prompt_that_is_found_is_a_token_prefix(directory, left, right, tail, more):
    tokenizer = PromptTokenizer((directory / "tokenizer.json").read_text())
    prompt = f"{left}<|im_end|>{right}<|im_start|>{tail}"
    text = prompt + more
    ids = tokenizer.encode(text)
    found = tokenizer.seams.prompt(prompt, text, ids)
    whole = tokenizer.encode(prompt)
    if found is not None:
        assert ids[:found] == whole
    elif ids[: len(whole)] == whole:
        # Only what cannot be told in general may be left to the slow way.
        assert "<|im" in left + right + tail + more or len(tail) > 200


def test_seams_are_used_for_ordinary_templates(directory, monkeypatch):
    source = resources.path("templates", "prompts", "chatml.jinja").read_text()
    tokenizer = PromptTokenizer((directory / "tokenizer.json").read_text())
    renderer = Renderer(PromptTemplate("chatml", source, special_tokens(directory)), tokenizer)
    monkeypatch.setattr(Supervision, "_supervise", lambda *_: pytest.fail("a prompt was encoded by itself"))
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}] * 2
    assert len(renderer.example(turns).supervised) == 2


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
def test_tokens_that_look_around_are_no_seams(directory, flag):
    assert not tokenizer_of(directory, **{"normalized": False, flag: True}).seams.cuts("<|x|>")
    assert tokenizer_of(directory, normalized=False).seams.cuts("<|x|>")


@pytest.mark.parametrize("other", ["<|x|>>", "x|>y", "a<|x", "|x|", "<|x|><|x|>"])
def test_tokens_that_others_overlap_are_no_seams(other):
    tokenizer = families.byte_level()
    tokenizer.add_special_tokens([AddedToken("<|x|>", normalized=False), AddedToken(other, normalized=False)])
    assert not PromptTokenizer(tokenizer.to_str()).seams.cuts("<|x|>")


def test_a_token_that_comes_from_other_text_too_is_not_counted_on(directory):
    tokenizer = PromptTokenizer((directory / "tokenizer.json").read_text())
    ids = tokenizer.encode("a<|im_end|>b")
    made_of_text = [ids[-1], *ids, tokenizer.token_id("<|im_end|>")]
    assert tokenizer.seams.through("a<|im_end|>", "<|im_end|>", "a<|im_end|>b", made_of_text) is None


def test_seams_that_differ_from_the_prompts_own_ids_are_given_up(directory):
    source = resources.path("templates", "prompts", "chatml.jinja").read_text()
    tokenizer = PromptTokenizer((directory / "tokenizer.json").read_text())
    renderer = Renderer(PromptTemplate("chatml", source, special_tokens(directory)), tokenizer)
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    expected = renderer.example(turns)

    class Wrong:
        def prompt(self, *_):
            return 1

        def through(self, *_):
            return 2

    renderer.supervision.seams = Wrong()
    ((_, found),) = renderer.examples(turns)
    assert found == expected
    assert renderer.supervision.seams is None


def test_workers_get_the_seams(directory):
    seams = PromptTokenizer((directory / "tokenizer.json").read_text()).seams
    assert pickle.loads(pickle.dumps(seams)).cuts("<|im_end|>")
