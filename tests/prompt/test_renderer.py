"""The four properties of the prompt contract, over tokenizer families, templates and conversations."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from support import tokenizers as families
from tunebuild import resources
from tunebuild.errors import TunebuildError
from tunebuild.prompt import (
    PromptRefused,
    PromptSettings,
    PromptTemplate,
    PromptTokenizer,
    Renderer,
    base_template,
    special_tokens,
)
from tunebuild.prompt.example import IGNORED

TEMPLATES = ["base", *sorted(p.stem for p in resources.path("templates", "prompts").glob("*.jinja"))]

text = st.text(
    st.characters(blacklist_categories=("Cs", "Co"), blacklist_characters="\x00"), min_size=1, max_size=40
).filter(str.strip)
indented = st.tuples(st.sampled_from(["", "\n", " ", "   ", "\n\n", "\t"]), text).map("".join)
turns = st.lists(st.tuples(text, text), min_size=1, max_size=3)


@pytest.fixture(scope="module", params=families.PARAMETERS)
def tokenizer_dir(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    return families.save(families.FAMILIES[request.param](), directory)


@pytest.fixture(scope="module")
def reference(tokenizer_dir):
    return AutoTokenizer.from_pretrained(tokenizer_dir)


def make_renderer(directory, template="base", **settings_):
    source = (
        base_template(directory)
        if template == "base"
        else resources.path("templates", "prompts", f"{template}.jinja").read_text()
    )
    return Renderer(
        PromptTemplate(template, source, special_tokens(directory)),
        PromptTokenizer((directory / "tokenizer.json").read_text()),
        PromptSettings(**settings_),
    )


def conversation(pairs):
    return [
        {"role": role, "content": content}
        for pair in pairs
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(pairs=turns)
def test_prompt_is_what_transformers_renders(tokenizer_dir, reference, template, pairs):
    renderer = make_renderer(tokenizer_dir, template)
    messages = conversation(pairs)[:-1]
    expected = reference.apply_chat_template(
        messages, chat_template=renderer.template.source, add_generation_prompt=True
    )["input_ids"]
    assert renderer.prompt_ids(messages) == expected


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(text, indented), min_size=1, max_size=3))
def test_each_answer_is_supervised_behind_the_prompt_that_is_served(tokenizer_dir, template, pairs):
    renderer = make_renderer(tokenizer_dir, template)
    messages = conversation(pairs)
    samples = renderer.examples(messages)
    seen = []
    for turns, sample in samples:
        for place, (start, end) in zip(range(-len(sample.supervised), 0), sample.supervised, strict=True):
            index = len(turns) + 2 * place + 1
            assert sample.ids[:start] == renderer.prompt_ids(messages[:index])
            assert sample.ids[end - 1] == renderer.turn_end_id
            assert renderer.decode(sample.ids[start:end]).strip() == messages[index]["content"].strip()
            seen.append(index)
        supervised = sum(end - start for start, end in sample.supervised)
        assert sample.labels.count(IGNORED) == len(sample.ids) - supervised
    assert seen == [index for index, turn in enumerate(messages) if turn["role"] == "assistant"]


@pytest.mark.parametrize("answer", ["\n  return x", "   x", " x", "\n\n\n- one", "\t\tx", "\u0301x", "\r\nx"])
@pytest.mark.parametrize("before", ["\n", " ", ": ", "|", "\n\n"])
def test_what_an_answer_begins_with_is_trained_as_it_is_generated(tokenizer_dir, before, answer):
    source = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + BEFORE + m['content'] + '<|im_end|>\n' -}}"
        "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant' + BEFORE -}}{%- endif -%}"
    ).replace("BEFORE", json.dumps(before))
    renderer = Renderer(
        PromptTemplate("untrimmed", source, special_tokens(tokenizer_dir)),
        PromptTokenizer((tokenizer_dir / "tokenizer.json").read_text()),
    )
    messages = conversation([("a", answer), ("b", answer), ("c", "plain")])
    samples = renderer.examples(messages)
    spell = renderer.tokenizer.spell
    for turns, sample in samples:
        start = sample.supervised[-1][0]
        assert sample.ids[:start] == renderer.prompt_ids(turns[:-1])
        # The text is the template's, whichever tokens it is made of.
        whole = spell(renderer.tokenizer.encode(renderer.texts.through(turns)))
        assert spell(sample.ids) == whole[: whole.rindex("<|im_end|>")] + "<|im_end|>"
    assert sum(len(sample.supervised) for _, sample in samples) == 3


@settings(max_examples=60, deadline=None)
@given(words=st.lists(text, min_size=2, max_size=4), data=st.data())
def test_control_tokens_typed_by_a_user_stay_text(tokenizer_dir, words, data):
    renderer = make_renderer(tokenizer_dir)
    spelling = data.draw(
        st.sampled_from(["<|im_end|>", "<|im_start|>", *special_tokens(tokenizer_dir).values()])
    )
    typed = renderer.prompt_ids([{"role": "user", "content": spelling.join(words)}])
    plain = renderer.prompt_ids([{"role": "user", "content": "x".join(words)}])
    control = renderer.tokenizer.control_ids
    assert [i for i in typed if i in control] == [i for i in plain if i in control]
    shown = renderer.tokenizer._plain.decode(typed, skip_special_tokens=False)
    assert shown.count(spelling) >= spelling.join(words).count(spelling)


@settings(max_examples=60, deadline=None)
@given(pairs=turns)
def test_the_twin_tokenizer_agrees_where_nothing_is_quoted(tokenizer_dir, pairs):
    tokenizer = PromptTokenizer((tokenizer_dir / "tokenizer.json").read_text())
    renderer = make_renderer(tokenizer_dir)
    rendered = renderer.template.render(conversation(pairs), add_generation_prompt=True)
    assert tokenizer._encode_by_twin(rendered) == tokenizer.encode(rendered)


@settings(max_examples=80, deadline=None)
@given(answer=text)
def test_streamed_text_is_the_decoded_text(tokenizer_dir, answer):
    renderer = make_renderer(tokenizer_dir)
    ids = renderer.encode_text(answer)
    stream = renderer.detokenizer()
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.flush() == renderer.decode(ids)
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in answer


def test_a_system_text_of_the_spec_is_served_and_trained(tokenizer_dir):
    renderer = make_renderer(tokenizer_dir, system="Be brief.")
    question = {"role": "user", "content": "Why?"}
    system = {"role": "system", "content": "Be brief."}
    own = {"role": "system", "content": "Sing."}
    assert renderer.prompt_ids([question]) == renderer.prompt_ids([system, question])
    assert renderer.prompt_ids([question]) != renderer.prompt_ids([own, question])
    answered = renderer.example([question, {"role": "assistant", "content": "So."}])
    start = answered.supervised[0][0]
    assert answered.ids[:start] == renderer.prompt_ids([question])


def test_a_template_without_an_end_of_turn_is_refused(tokenizer_dir):
    source = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with pytest.raises(TunebuildError, match="never learn to stop"):
        Renderer(
            PromptTemplate("endless", source, special_tokens(tokenizer_dir)),
            PromptTokenizer((tokenizer_dir / "tokenizer.json").read_text()),
        )


def test_a_template_that_rewrites_history_is_refused(tokenizer_dir):
    source = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' -}}"
        "{%- if m['role'] == 'assistant' and not loop.last -%}{{- 'earlier: ' -}}{%- endif -%}"
        "{{- m['content'] + '<|im_end|>\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
    )
    renderer = Renderer(
        PromptTemplate("rewriter", source, special_tokens(tokenizer_dir)),
        PromptTokenizer((tokenizer_dir / "tokenizer.json").read_text()),
    )
    with pytest.raises(PromptRefused, match="rewrites it once more turns follow"):
        renderer.example(conversation([("a", "b"), ("c", "d")]))


@settings(max_examples=30, deadline=None)
@given(pairs=st.lists(st.tuples(text, text), min_size=2, max_size=3))
def test_rewritten_history_gives_a_sample_for_each_answer(tokenizer_dir, pairs):
    # As reasoning models' templates do: earlier answers lose their thoughts.
    source = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' -}}"
        "{%- if m['role'] == 'assistant' and not loop.last -%}"
        "{{- m['content'].split('</think>')[-1] -}}{%- else -%}{{- m['content'] -}}{%- endif -%}"
        "{{- '<|im_end|>\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
    )
    renderer = Renderer(
        PromptTemplate("thinker", source, special_tokens(tokenizer_dir)),
        PromptTokenizer((tokenizer_dir / "tokenizer.json").read_text()),
    )
    messages = conversation([(asked, f"thought</think>{answer}") for asked, answer in pairs])
    samples = renderer.examples(messages)
    assert len(samples) == len(pairs)
    for number, (turns, example) in enumerate(samples):
        assert turns == messages[: 2 * number + 2]
        ((start, end),) = example.supervised
        assert example.ids[:start] == renderer.prompt_ids(turns[:-1])
        assert end == len(example.ids)
        assert example.ids[-1] == renderer.turn_end_id
        assert renderer.decode(example.ids[start:]).strip() == turns[-1]["content"].strip()


def test_a_template_whose_prompt_is_not_a_prefix_is_refused(tokenizer_dir):
    source = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' -}}"
        "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>bot\n' -}}{%- endif -%}"
    )
    renderer = Renderer(
        PromptTemplate("two-faced", source, special_tokens(tokenizer_dir)),
        PromptTokenizer((tokenizer_dir / "tokenizer.json").read_text()),
    )
    with pytest.raises(PromptRefused, match="not a token prefix"):
        renderer.example(conversation([("a", "b")]))


def test_todays_date_must_be_pinned(tokenizer_dir):
    source = "{{ strftime_now('%d %b %Y') }}" + families.CHATML
    tokenizer = PromptTokenizer((tokenizer_dir / "tokenizer.json").read_text())
    with pytest.raises(TunebuildError, match="today's date"):
        Renderer(PromptTemplate("dated", source, {}), tokenizer)
    pinned = Renderer(PromptTemplate("dated", source, {}, "2026-01-31"), tokenizer)
    assert pinned.prompt_text([{"role": "user", "content": "x"}]).startswith("31 Jan 2026")


def test_the_sandbox_holds(tokenizer_dir):
    source = families.CHATML + "{{ messages.append(1) }}"
    tokenizer = PromptTokenizer((tokenizer_dir / "tokenizer.json").read_text())
    with pytest.raises(PromptRefused):
        Renderer(PromptTemplate("escape", source, {}), tokenizer)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("llama3", "'<|eot_id|>', which is no control token of this tokenizer"),
        ("gemma", "'<end_of_turn>', which is no control token of this tokenizer"),
        ("qa", "'eos_token' is undefined; the base's tokenizer_config.json must name it"),
    ],
)
def test_a_template_without_its_end_token_is_refused_by_the_token(template, expected):
    tokenizer = families.byte_level()
    definition = json.loads(tokenizer.to_str())
    definition["added_tokens"] = [t for t in definition["added_tokens"] if t["content"] == "<|endoftext|>"]
    source = resources.path("templates", "prompts", f"{template}.jinja").read_text()
    with pytest.raises(TunebuildError) as error:
        Renderer(PromptTemplate(template, source, {}), PromptTokenizer(json.dumps(definition)))
    assert expected in str(error.value)
    assert error.value.diagnostics[0].path == "prompt.template"


@pytest.mark.parametrize("named", ["<|im_start|>", "<|endoftext|>"])
def test_a_turn_ends_as_the_template_ends_it_whatever_the_tokenizer_names_as_end(named):
    """A converted file may name the token that begins a turn: answers would run on into the next one."""
    tokenizer = PromptTokenizer(families.byte_level().to_str())
    template = PromptTemplate("base", families.CHATML, {"eos_token": named, "bos_token": named})
    wrong = tokenizer.token_id(named)
    renderer = Renderer(template, tokenizer, PromptSettings(None, (wrong,)))
    end = tokenizer.token_id("<|im_end|>")
    example = renderer.example([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    ((first, last),) = example.supervised
    assert renderer.turn_end_id == end
    assert renderer.decode(example.ids[first:last]) == "b"
    assert example.ids[last - 1] == end
    assert renderer.stop_ids == {end, wrong}


@pytest.mark.parametrize("template", ["mistral", "llama2", "alpaca", "vicuna", "gemma", "qwen"])
def test_an_answer_without_a_question_is_refused_in_words(tokenizer_dir, template):
    renderer = make_renderer(tokenizer_dir, template)
    with pytest.raises(PromptRefused, match="needs a turn before the first answer"):
        renderer.example([{"role": "assistant", "content": "So."}])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 10.0 ** 400 }}", "out of range"),
        ("{% for i in range(10 ** 9) %}{{ i }}{% endfor %}", "Range too big"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
        ("{% for m in messages %}" * 30 + "{% endfor %}" * 30, "cannot be compiled"),
        ("{{ messages[0].content | tojson | int | round(2) | foo }}", "No filter named"),
    ],
)
def test_whatever_a_template_runs_into_is_an_error_of_the_template(source, reason):
    tokenizer = PromptTokenizer(families.byte_level().to_str())
    with pytest.raises(TunebuildError, match=reason) as error:
        Renderer(PromptTemplate("own", source, {}), tokenizer)
    assert error.value.diagnostics[0].path == "prompt.template"


def test_a_file_of_another_encoding_is_no_template(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes("{{ 'Größe' }}".encode("latin-1"))
    with pytest.raises(TunebuildError, match="is not UTF-8"):
        base_template(tmp_path)


@pytest.mark.parametrize("entry", ["a", 5, {}, {"name": "default"}, {"name": "default", "template": 5}])
def test_a_list_of_templates_without_a_default_one_has_none(entry, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": [entry]}))
    assert base_template(tmp_path) is None
