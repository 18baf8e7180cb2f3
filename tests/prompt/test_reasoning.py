"""Reasoning: markers are found in the template, it is trained behind the served prompt, and parted again."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import real_tokenizers, templates
from support import tokenizers as families
from tunebuild import resources
from tunebuild.prompt import (
    PromptRefused,
    PromptSettings,
    PromptTemplate,
    PromptTokenizer,
    Renderer,
    base_template,
    load_prompt,
    save_prompt,
    special_tokens,
)
from tunebuild.prompt.reasoning_stream import ReasoningStream

THINK = ("<think>\n", "\n</think>\n\n")
HARMONY = ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>")
TEMPLATES = {
    "switched": (templates.SWITCHED, {}),
    "always": (templates.ALWAYS, {}),
    "opened": (templates.OPENED, {}),
    "dropped": (templates.DROPPED, {}),
    "half": (templates.HALF, {"thinking": True}),
    "harmony": (templates.HARMONY, {}),
}
CHANNELS = ["<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|return|>"]


@cache
def definition(*, think: bool, special: bool) -> str:
    tokenizer = families.byte_level()
    tokenizer.add_special_tokens([c for c in CHANNELS if tokenizer.token_to_id(c) is None])
    if think:
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(["<think>", "</think>"])
    return tokenizer.to_str()


@cache
def renderer_of(name, *, think=False, special=False, plain="close"):
    source, variables = TEMPLATES[name]
    template = PromptTemplate(name, source, {}, None, variables)
    return Renderer(
        template,
        PromptTokenizer(definition(think=think, special=special)),
        PromptSettings(plain_answers=plain),
    )


def asked(*pairs):
    return [
        {"role": role, "content": part} if isinstance(part, str) else {"role": role, **part}
        for pair in pairs
        for role, part in zip(("user", "assistant"), pair, strict=True)
    ]


def trained(renderer, messages):
    """The spelled prompt and target of each sample's last answer, checked to begin with the served prompt."""
    found = []
    for turns, example in renderer.examples(messages):
        prompt = renderer.prompt_ids(turns[:-1])
        start, end = example.supervised[-1]
        assert example.ids[:start] == prompt
        spell = renderer.tokenizer._plain.decode
        found.append(tuple(spell(part, False) for part in (prompt, example.ids[start:end])))
    return found


@pytest.mark.parametrize(
    ("name", "key", "form", "markers", "opens"),
    [
        ("switched", "reasoning_content", "key", THINK, False),
        ("always", "reasoning_content", "key", THINK, True),
        ("opened", "reasoning_content", "content", THINK, True),
        ("dropped", "reasoning_content", "prompt", THINK, True),
        ("half", "reasoning_content", "prompt", ("<think>", "</think>"), True),
        ("harmony", "thinking", "key", HARMONY, False),
    ],
)
def test_markers_are_found_by_rendering(name, key, form, markers, opens):
    renderer = renderer_of(name)
    found = renderer.reasoning
    assert (found.key, found.form, (found.opening, found.closing)) == (key, form, markers)
    assert (renderer.texts.opens, renderer.texts.closes) == (opens, False)


def test_shipped_templates_know_no_reasoning():
    for name in resources.shipped_templates():
        source = resources.path("templates", "prompts", f"{name}.jinja").read_text("utf-8")
        tokenizer = PromptTokenizer(definition(think=False, special=False))
        template = PromptTemplate(name, source, {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"})
        assert Renderer(template, tokenizer).reasoning is None, name


text = st.text(st.characters(blacklist_categories=("Cs", "Co"), blacklist_characters="\x00<>|"), max_size=9)
said = st.lists(st.sampled_from([" ", "\n", "\n\n", "a", "thi", "</", "<", "4.", "x y"]) | text, max_size=6)
words = said.map("".join).filter(str.strip).map(lambda t: f"({t})")
many = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("tokens", ["text", "added", "special"])
@pytest.mark.parametrize("name", TEMPLATES)
@many
@given(st.lists(st.tuples(words, words | st.none(), words), min_size=1, max_size=3))
def test_what_is_trained_is_parted_again(name, tokens, talk):
    """Each answer begins with the served prompt, and the endpoint would part it as the row has it."""
    renderer = renderer_of(name, think=tokens != "text", special=tokens == "special")
    messages = asked(*((q, {"content": a, **({"reasoning_content": r} if r else {})}) for q, r, a in talk))
    samples = renderer.examples(messages)
    assert sum(len(e.supervised) for _, e in samples) == len(talk)
    for turns, example in samples:
        for (start, end), (_, reasoning, answer) in zip(
            example.supervised[::-1], talk[: len(turns) // 2][::-1], strict=False
        ):
            prompt = example.ids[:start]
            assert renderer.answers.separate(prompt, example.ids[start:end]) == (reasoning or "", answer)
        assert example.ids[: example.supervised[-1][0]] == renderer.prompt_ids(turns[:-1])


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "harmony"])
def test_a_block_in_the_content_is_the_same_as_the_key(name):
    renderer = renderer_of(name)
    opening, closing = renderer.reasoning.opening, renderer.reasoning.closing
    keyed = asked(("2 + 2?", {"reasoning_content": "Two and two.", "content": "4"}))
    inside = asked(("2 + 2?", f"{opening}Two and two.{closing}4"))
    assert renderer.examples(inside)[0][1] == renderer.examples(keyed)[0][1]
    if renderer.texts.opens:  # what such a model writes has no opening marker
        rest = asked(("2 + 2?", f"Two and two.{closing}4"))
        assert renderer.examples(rest)[0][1] == renderer.examples(keyed)[0][1]


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "harmony"])
def test_reasoning_that_stands_in_both_places_is_trained_once(name):
    renderer = renderer_of(name)
    block = f"{renderer.reasoning.opening}Two and two.{renderer.reasoning.closing}"
    keyed = {"reasoning_content": "Two and two.\n", "content": "4"}
    both = asked(("2 + 2?", {**keyed, "content": f"{block}4"}))
    assert renderer.examples(both)[0][1] == renderer.examples(asked(("2 + 2?", keyed)))[0][1]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("kind", ["closed early", "another block"])
def test_reasoning_that_could_not_be_told_apart_is_refused(name, kind):
    renderer = renderer_of(name)
    closer = renderer.reasoning.closer
    block = f"{renderer.reasoning.opening}Three.{renderer.reasoning.closing}"
    odd = {
        "closed early": {"reasoning_content": f"Some write {closer} here.", "content": "4"},
        "another block": {"reasoning_content": "Two and two.", "content": f"{block}4"},
    }[kind]
    talk = asked(("2 + 2?", odd), ("And 3 + 3?", "6"))
    with pytest.raises(PromptRefused, match="turn 2: it") as refused:
        renderer.examples(talk)
    assert refused.value.diagnostics[0].code == "reasoning-mixed"


@pytest.mark.parametrize("name", ["always", "opened", "dropped", "half"])
def test_plain_answers_behind_an_opened_block(name):
    talk = asked(("2 + 2?", "4"))
    markers = renderer_of(name).reasoning
    ((prompt, target),) = trained(renderer_of(name), talk)
    assert prompt.endswith(markers.opening)
    assert target.startswith(markers.closing.lstrip() + "4")
    ((prompt, target),) = trained(renderer_of(name, plain="prefill"), talk)
    assert prompt.endswith(markers.opening + markers.closing.lstrip())
    assert target.startswith("4")
    with pytest.raises(PromptRefused, match="has no reasoning"):
        renderer_of(name, plain="refuse").examples(talk)
    reasoned = asked(("2 + 2?", {"reasoning_content": "Two and two.", "content": "4"}))
    with pytest.raises(PromptRefused, match="prefill closes the block"):
        renderer_of(name, plain="prefill").examples(reasoned)
    assert trained(renderer_of(name, plain="refuse"), reasoned) == trained(renderer_of(name), reasoned)
    digests = {renderer_of(name, plain=plain).digest for plain in ("close", "prefill", "refuse")}
    assert len(digests) == 3


def test_a_saved_prompt_keeps_what_becomes_of_plain_answers(tmp_path):
    renderer = renderer_of("opened", plain="prefill")
    save_prompt(tmp_path, renderer, tmp_path)
    assert load_prompt(tmp_path).prompt_ids(asked(("a", "b"))[:1]) == renderer.prompt_ids(
        asked(("a", "b"))[:1]
    )


def test_a_prompt_that_closes_the_block_takes_no_reasoning():
    template = PromptTemplate("off", templates.SWITCHED, {}, None, {"enable_thinking": False})
    renderer = Renderer(template, PromptTokenizer(definition(think=True, special=False)))
    assert renderer.texts.closes
    assert trained(renderer, asked(("2?", "4")))[0][1] == "4<|im_end|>"
    with pytest.raises(PromptRefused, match="closes the block") as refused:
        renderer.examples(asked(("2?", {"reasoning_content": "Two.", "content": "4"})))
    assert refused.value.diagnostics[0].code == "reasoning-closed"


def streams(pieces, markers, *, opened):
    stream = ReasoningStream(markers, opened=opened)
    parts = [*map(stream.push, pieces), stream.flush()]
    return tuple("".join(column) for column in zip(*parts, strict=True))


fragments = [
    "<", "think", ">", "</", "\n", "\n\n", "a", " ", "<think>", "</think>", "<|channel|>", "analysis",
    "<|message|>", "final", "<|end|><|start|>assistant", "ok",
]  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(fragments), max_size=12), st.booleans(), st.data())
def test_a_stream_is_parted_as_the_whole_is(name, parts, opened, data):
    markers, whole = renderer_of(name).reasoning, "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert streams(pieces, markers, opened=opened) == streams([whole], markers, opened=opened)
    assert streams(list(whole), markers, opened=opened) == streams([whole], markers, opened=opened)


@pytest.mark.parametrize(
    ("written", "opened", "expected"),
    [
        ("<think>\nTwo.\n</think>\n\n4", False, ("Two.", "4")),
        ("Two.\n</think>\n\n4", True, ("Two.", "4")),
        ("</think>\n\n4", True, ("", "4")),
        ("<think>\n\n</think>\n\n4", False, ("", "4")),
        ("<think>\nTwo and", False, ("Two and", "")),
        ("Two and\n</thi", True, ("Two and\n</thi", "")),
        ("4", False, ("", "4")),
        (" \n4 ", False, ("", " \n4 ")),
        ("4 <think>no</think>", False, ("", "4 <think>no</think>")),
        ("<think", False, ("", "<think")),
        ("<thing>4", False, ("", "<thing>4")),
        ("Two.\n</think>\n\n4 </think>", True, ("Two.", "4 </think>")),
    ],
)
def test_what_a_model_may_write(written, opened, expected):
    markers = renderer_of("opened").reasoning
    assert streams([written], markers, opened=opened) == expected
    assert streams(list(written), markers, opened=opened) == expected


@cache
def published(name, **variables):
    directory = real_tokenizers.real(name).directory
    template = PromptTemplate("base", base_template(directory), special_tokens(directory), None, variables)
    return Renderer(template, PromptTokenizer((directory / "tokenizer.json").read_text("utf-8")))


CASES = [
    asked(("2 + 3?", {"reasoning_content": "Add two and three.", "content": "5"})),
    asked(("2 + 2?", "<think>\nTwo and two.\n</think>\n\n4")),
    asked(
        ("2 + 2?", "<think>\nTwo and two.\n</think>\n\n4"),
        ("And doubled?", "<think>\nFour times two.\n</think>\n\n8"),
    ),
    asked(("2 + 2?", "4"), ("And doubled?", "8")),
]


@pytest.mark.parametrize("talk", CASES)
def test_qwen_3_trains_what_its_template_prints(talk):
    """A sample for each answer, its ids those of transformers up to the end of the turn."""
    from transformers import AutoTokenizer

    renderer = published("qwen3")
    reference = AutoTokenizer.from_pretrained(real_tokenizers.real("qwen3").directory)
    samples = renderer.examples(talk)
    assert len(samples) == len(talk) // 2
    for turns, example in samples:
        expected = reference.apply_chat_template(talk[: len(turns)], tokenize=True, return_dict=False)
        assert expected[: len(example.ids)] == example.ids
        assert expected[len(example.ids) :] == reference.encode("\n")
        think = [renderer.tokenizer.token_id(tag) for tag in ("<think>", "</think>")]
        start, end = example.supervised[0]
        assert [i for i in example.ids[start:end] if i in think] == think
        assert example.ids[:start] == reference.apply_chat_template(
            talk[: len(turns) - 1], tokenize=True, add_generation_prompt=True, return_dict=False
        )


def test_qwen_3_without_thinking():
    renderer = published("qwen3", enable_thinking=False)
    ((prompt, target),) = trained(renderer, asked(("2 + 2?", "4")))
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert target == "4<|im_end|>"
    with pytest.raises(PromptRefused, match="closes the block"):
        renderer.examples(CASES[0])


@pytest.mark.slow
def test_gpt_oss_parts_its_channels():
    renderer = published("gptoss")
    ((prompt, target),) = trained(renderer, CASES[0])
    assert prompt.endswith("<|start|>assistant")
    assert target == f"{HARMONY[0]}Add two and three.{HARMONY[1]}5<|return|>"
    ((_, target),) = trained(renderer, asked(("2 + 2?", "4")))
    assert target == "<|channel|>final<|message|>4<|return|>"
