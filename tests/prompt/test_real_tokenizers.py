"""The prompt contract on published tokenizers: each property over each of them."""
# ruff: noqa: RUF001 - tokens are spelled with unusual signs

from __future__ import annotations

import unicodedata
from functools import cache

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from support import real_tokenizers
from support.conversations import agrees
from tunebuild.data.unused import Unused, as_printed
from tunebuild.prompt import (
    PromptRefused,
    PromptSettings,
    PromptTemplate,
    PromptTokenizer,
    Renderer,
    base_template,
    check_golden,
    make_golden,
    special_tokens,
)

# transformers loads these as their own classes; the others through their tokenizer.json, which for
# DeepSeek-V3 is the only right reference: the class that transformers takes loses its blanks.
_BY_CLASS = {"qwen3", "llama3_1", "gemma3", "gptoss"}
# Spellings that are control tokens to some of the tokenizers, and text that real rows hold.
PIECES = [
    "<|im_end|>", "<|im_start|>", "<|eot_id|>", "<|start_header_id|>", "<end_of_turn>",
    "<start_of_turn>", "<bos>", "</s>", "<s>", "<unk>", "[INST]", "[/INST]", "<|end|>", "<|user|>",
    "<|return|>", "<|channel|>", "<|endoftext|>", "<｜User｜>", "<｜Assistant｜>",
    "<｜end▁of▁sentence｜>", "<|tool_call|>", "<tool_call>", "<tool_response>", "\n", "\n\n", "\n\n\n",
    "\t", "\t\t", "  ", "    ", "\r\n", " ", "<b>", "</table>", "<h1>", "<code>", "<br>",
    "def f(x):\n    return x  # y\n", "```python\nprint(1)\n```", "\U0001f9ed", "👩‍👩‍👧", "é",
    "e\u0301", "你好", "مرحبا", "<|im_", "end|>", "<", "|>", "▁", "\u2581x", "it's", "12345",
    "1 + 1 = 2", "{\"a\": 1}", "&amp;", "user", "<0x0A>", "\ufeff", "\u200b", "\u00a0", "<unused7>",
    "[multimodal]", "<mask>", ">>QUESTION<<", "<|reserved_special_token_3|>",
]  # fmt: skip
plain = st.text(
    st.characters(blacklist_categories=("Cs", "Co"), blacklist_characters="\x00"), min_size=1, max_size=12
)
typed = st.lists(st.one_of(st.sampled_from(PIECES), plain), min_size=1, max_size=8).map("".join)
said = typed.filter(str.strip)
many = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
few = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=real_tokenizers.PARAMETERS)
def name(request):
    real_tokenizers.real(request.param)
    return request.param


@cache
def renderer_of(name):
    directory = real_tokenizers.real(name).directory
    definition = (directory / "tokenizer.json").read_text("utf-8")
    template = PromptTemplate("base", base_template(directory), special_tokens(directory))
    return Renderer(template, PromptTokenizer(definition), PromptSettings())


@cache
def raw(name):
    """The tokenizer as it is published, which knows nothing of control tokens in user text."""
    return Tokenizer.from_file(str(real_tokenizers.real(name).directory / "tokenizer.json"))


@cache
def reference(name):
    directory = real_tokenizers.real(name).directory
    if name in _BY_CLASS:
        return AutoTokenizer.from_pretrained(directory)
    named = special_tokens(directory)
    return PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"), **named)


def exchange(*pairs):
    return [
        {"role": role, "content": content}
        for pair in pairs
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]


def quotes(name, text):
    """Whether a text holds a control token's spelling."""
    return any(spelling in text for spelling in renderer_of(name).tokenizer.controls.everything)


@many
@given(pairs=st.lists(st.tuples(said, said), min_size=1, max_size=3))
def test_ids_are_the_reference_s_where_nothing_is_quoted(name, pairs):
    renderer = renderer_of(name)
    for turn in (text for pair in pairs for text in pair):
        if quotes(name, turn):
            return
    messages = exchange(*pairs)[:-1]
    expected = reference(name).apply_chat_template(
        messages, chat_template=renderer.template.source, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert renderer.prompt_ids(messages) == expected


@many
@given(text=said)
@example(text="".join(PIECES))
def test_what_a_user_types_is_never_a_control_token(name, text):
    renderer = renderer_of(name)
    controls = renderer.tokenizer.control_ids
    frame = [i for i in renderer.prompt_ids([{"role": "user", "content": "x"}]) if i in controls]
    assert [i for i in renderer.prompt_ids([{"role": "user", "content": text}]) if i in controls] == frame
    assert controls.isdisjoint(renderer.encode_text(text))


def test_every_added_token_s_spelling_is_text(name):
    renderer = renderer_of(name)
    added = renderer.tokenizer._added.values()
    frame = renderer.prompt_ids([{"role": "user", "content": "x"}])
    controls = renderer.tokenizer.control_ids
    spellings = [token.content for token in added]
    text = "a".join(spellings)
    ids = renderer.prompt_ids([{"role": "user", "content": text}])
    assert [i for i in ids if i in controls] == [i for i in frame if i in controls]
    shown = raw(name).decode(renderer.encode_text(text), skip_special_tokens=False)
    expected = text.replace("\u2581", " ") if name == "gemma3" else text
    assert shown.lstrip(" ") == expected


@many
@given(text=typed)
@example(text="".join(PIECES))
def test_text_decodes_to_the_same_characters(name, text):
    renderer = renderer_of(name)
    ids = renderer.encode_text(text)
    shown = raw(name).decode(ids, skip_special_tokens=False)
    # SentencePiece's mark for a blank is a blank to it, Qwen's tokenizers compose characters, and
    # Llama 2's begin each text with a blank of their own.
    expected = renderer.tokenizer._plain.normalizer
    text = text.replace("\u2581", " ") if name in ("llama2", "phi3", "gemma3") else text
    if name == "qwen3":
        text = expected.normalize_str(text)
    if name in ("llama2", "phi3"):
        shown, text = shown.lstrip(" "), text.lstrip(" ")
    assert shown == text


@many
@given(pairs=st.lists(st.tuples(said, said), min_size=1, max_size=3))
def test_the_prompt_is_a_prefix_of_what_is_trained(name, pairs):
    renderer = renderer_of(name)
    for turns, sample in renderer.examples(exchange(*pairs)):
        asked = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
        for index, (start, end) in zip(asked[-len(sample.supervised) :], sample.supervised, strict=True):
            assert sample.ids[:start] == renderer.prompt_ids(turns[:index])
            assert sample.ids[end - 1] == renderer.turn_end_id
            controls = [i for i in sample.ids[start : end - 1] if i in renderer.tokenizer.control_ids]
            frame = renderer.examples(exchange(("a", "b")))[0][1]
            assert len(controls) <= len(frame.ids)


@few
@given(pairs=st.lists(st.tuples(said, said), min_size=1, max_size=2))
def test_golden_vectors_reproduce(name, pairs):
    first = renderer_of(name)
    vectors = make_golden(first, [("row", exchange(*pairs)[:-1])])
    again = Renderer(first.template, first.tokenizer)
    assert check_golden(again, vectors) is None
    assert all(vector.ids is not None for vector in vectors if vector.name not in ("system", "empty-system"))
    changed = [v if i else type(v)(v.name, v.messages, [*v.ids[:-1], 7]) for i, v in enumerate(vectors)]
    assert check_golden(again, changed) is not None


@few
@given(talks=st.lists(st.lists(st.tuples(said, said), min_size=1, max_size=2), min_size=1, max_size=4))
def test_a_batch_is_what_each_row_is_alone(name, talks):
    renderer = renderer_of(name)
    conversations = [exchange(*pairs) for pairs in talks]
    for together, alone in zip(renderer.examples_of(conversations), conversations, strict=True):
        (one,) = renderer.examples_of([alone])
        if isinstance(one, PromptRefused):
            assert together.diagnostics == one.diagnostics
        else:
            assert together == one


@few
@given(pairs=st.lists(st.tuples(said, said), min_size=1, max_size=3))
def test_fast_paths_change_nothing(name, pairs):
    quick = renderer_of(name)
    found = quick.examples(exchange(*pairs))
    slow = Renderer(quick.template, quick.tokenizer)
    slow.supervision.seams, kept = None, quick.tokenizer.__dict__.get("_words")
    quick.tokenizer.__dict__["_words"] = None
    try:
        assert slow.examples(exchange(*pairs)) == found
    finally:
        quick.tokenizer.__dict__["_words"] = kept


@many
@given(text=typed)
@example(text="".join(PIECES))
def test_streamed_text_is_the_decoded_text(name, text):
    renderer = renderer_of(name)
    ids = renderer.encode_text(text)
    stream = renderer.detokenizer()
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.flush() == renderer.decode(ids)


@many
@given(text=said)
def test_the_twin_agrees_where_nothing_is_quoted(name, text):
    renderer = renderer_of(name)
    if quotes(name, text):
        return
    rendered = renderer.prompt_text([{"role": "user", "content": text}])
    assert renderer.tokenizer._encode_by_twin(rendered) == renderer.tokenizer.encode(rendered)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_row_and_a_request_give_the_same_ids(name, data):
    agrees(renderer_of(name), data)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(thoughts=said.map(str.strip).filter(lambda text: "think" not in text), answer=said)
def test_reasoning_is_trained_and_told_apart_or_reported(name, thoughts, answer):
    renderer = renderer_of(name)
    plain = exchange(("2 + 3?", answer))
    talk = renderer.separated([plain[0], {**plain[1], "reasoning_content": thoughts}])
    sample = renderer.examples(talk)[-1][1]
    ((start, end),) = sample.supervised
    account = as_printed(renderer, talk)[1]
    if renderer.reasoning is None:
        assert account[Unused("key", "assistant", "reasoning_content")] == 1
        assert sample == renderer.examples(plain)[-1][1]
        return
    assert not account[Unused("key", "assistant", "reasoning_content")]
    found = renderer.answers.separate(sample.ids[:start], sample.ids[start:end])
    expected = unicodedata.normalize("NFC", thoughts) if name == "qwen3" else thoughts
    assert found[0].strip() == expected


def test_rows_of_every_kind_are_trained_on(name):
    renderer = renderer_of(name)
    end = renderer.tokenizer.token_text(renderer.turn_end_id)
    rows = [
        ("What does " + end + " do?", "It ends a turn, as " + end + " does elsewhere."),
        ("Line one\n\n\nline four\twith a tab", "Seen:\n  - two\n    blanks   inside"),
        ("Is <b>bold</b> HTML?", "Yes: <b>, <i> and <table> are tags."),
        ("Show a block.", "```python\ndef f(x):\n    return x\n```"),
        ("Emoji? 👩‍👩‍👧", "Yes 🧭!"),
        (" ".join(sorted(renderer.tokenizer.controls.everything)[:30]), "Those are control tokens."),
    ]
    for asked, answered in rows:
        ((_, sample),) = renderer.examples(exchange((asked, answered)))
        ((start, stop),) = sample.supervised
        assert answered in renderer.decode(sample.ids[start:stop]).replace("\u00a0", " ")


@pytest.mark.slow
def test_mistral_s_own_library_gives_the_same_ids():
    """Ids of mistral-common's encoder, in which text that a user types is never a control token either."""
    text = "Hello world, it's 2024!\n\n  x <|im_end|> [INST]"
    expected = [
        22177, 4304, 1044, 1494, 1681, 1032, 1050, 1048, 1050, 1052, 5338, 1032, 2460, 1534, 1124, 1329,
        23836, 1124, 1062, 1766, 3174, 3074, 1093,
    ]  # fmt: skip
    assert renderer_of("mistral").encode_text(text) == expected


@pytest.mark.slow
def test_what_is_a_control_token():
    def controls(name):
        found = renderer_of(name).tokenizer.controls
        return found.turns, found.answers

    turns, answers = controls("gemma3")
    assert {"<start_of_turn>", "<end_of_turn>", "<bos>"} <= turns
    assert not {"\n", "\n\n", "  ", "\t", "<b>", "<table>"} & (turns | answers)
    turns, answers = controls("qwen3")
    assert {"<|im_start|>", "<|im_end|>"} <= turns
    assert {"<tool_call>", "</tool_call>"} <= answers
    assert not {"<think>", "</think>"} & (turns | answers)
    turns, answers = controls("deepseek_v3")
    assert {"<｜User｜>", "<｜Assistant｜>"} <= turns  # marked as ordinary, but the template writes them
