"""Tool calls are parsed back by the format that the template prints, whatever the template is."""

from __future__ import annotations

import json
from functools import lru_cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import call_templates
from support.real_tokenizers import PARAMETERS, real
from tunebuild.data.prompt_source import build_renderer
from tunebuild.prompt import PromptTemplate, Renderer
from tunebuild.prompt.call_grammar import call_grammar
from tunebuild.prompt.call_parser import CallArguments, CallBegun, CallParser, PlainText
from tunebuild.prompt.messages import with_tools
from tunebuild.prompt.tools import plain_tools
from tunebuild.spec.model import PromptSpec

#: Real tokenizers, each with a template that prints tools: its own, a shipped one, or one of its kind.
PRINTING = {
    "qwen3": ("qwen3", "base"),
    "qwen": ("qwen3", "qwen"),
    "listed": ("mistral", call_templates.LISTED),
    "bare": ("llama3_1", call_templates.BARE),
    "fenced": ("deepseek_v3", call_templates.FENCED),
}
#: For pytest: 'make quick' takes a published format and one that is told from text by nothing but its shape.
PRINTED = [
    pytest.param(name, marks=() if name in ("qwen3", "bare") else pytest.mark.slow) for name in PRINTING
]
TOOLS = plain_tools([{"name": "weather", "description": "In a city.", "parameters": {"type": "object"}}])
USER = {"role": "user", "content": "Weather?"}


@lru_cache
def renderer(name: str) -> Renderer:
    tokenizer, template = PRINTING[name]
    directory = real(tokenizer).directory
    own = template if template in ("base", "qwen") else "base"
    found = build_renderer(PromptSpec(template=own, date="2026-01-31"), directory, directory)
    if own == template:
        return found
    made = PromptTemplate(name, template, found.template.special_tokens)
    return Renderer(made, found.tokenizer, found.settings)


def split(found: Renderer, ids: list[int], sizes: list[int]):
    """What a parser makes of an answer that comes in pieces: its text, and its calls."""
    parser, stream = CallParser(found.call_format), found.detokenizer(calls=True)
    pieces = [stream.push(i) for i in ids if i not in found.stop_ids] + [stream.flush()]
    text = "".join(pieces)
    cuts = sizes or [1]
    parts, at, n = [], 0, 0
    while at < len(text):
        parts += parser.push(text[at : at + cuts[n % len(cuts)]])
        at, n = at + cuts[n % len(cuts)], n + 1
    parts += parser.flush()
    calls: list[list[str]] = []
    for part in parts:
        if isinstance(part, CallBegun):
            assert part.index == len(calls)
            calls.append([part.name, part.call_id, ""])
        elif isinstance(part, CallArguments):
            assert part.index == len(calls) - 1
            calls[part.index][2] += part.text
    said = "".join(part.text for part in parts if isinstance(part, PlainText))
    return said, [(name, call_id, json.loads(arguments)) for name, call_id, arguments in calls]


texts = st.text(st.characters(exclude_categories=("Cs", "Co")), max_size=12) | st.sampled_from(
    ["</tool_call>", "<tool_call>", '"}', "\\", "\n", "]", "```", "{", "<|im_end|>", "é\U0001f9ed"]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
calls = st.lists(
    st.tuples(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
        st.dictionaries(texts, values, max_size=3),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("name", PRINTED)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls, st.sampled_from(["", "I look it up.", "Two:\n\nlines  "]), st.lists(st.integers(1, 9), max_size=4)
)
def test_calls_come_back_as_they_were_printed(name, made, content, sizes):
    found = renderer(name)
    form = found.call_format
    made = made if form.again else made[:1]
    content = content if name in ("qwen3", "qwen") else ""  # the others print a text or calls
    given_calls = [
        {"id": f"call0000{n}", "type": "function", "function": {"name": name_, "arguments": arguments}}
        for n, (name_, arguments) in enumerate(made)
    ]
    said = {"role": "assistant", "content": content, "tool_calls": given_calls}
    example = found.example(with_tools([USER, said], TOOLS))
    ((start, end),) = example.supervised
    text, back = split(found, example.ids[start:end], sizes)
    ids = [f"call0000{n}" if "id" in form.slots else "" for n in range(len(made))]
    assert back == [(name_, i, arguments) for (name_, arguments), i in zip(made, ids, strict=True)]
    # An empty think block is part of the answer with Qwen 3's template.
    assert text.removeprefix("<think>\n\n</think>\n").removeprefix("\n") == content


@pytest.mark.parametrize("name", PARAMETERS)
def test_templates_that_print_no_tools_say_so(name):
    directory = real(name).directory
    found = build_renderer(PromptSpec(date="2026-01-31"), directory, directory)
    assert (found.call_format is None) == (name != "qwen3")
    assert (found.no_calls == "") == (name == "qwen3")


def test_a_call_whose_arguments_are_no_json_cannot_be_parsed():
    base = renderer("qwen3")
    tagged = Renderer(PromptTemplate("tagged", call_templates.TAGGED, {}), base.tokenizer)
    assert tagged.no_calls == "template 'tagged' prints a call's arguments in another form than JSON"


@pytest.mark.parametrize("name", ["qwen3", "listed", "bare"])
@pytest.mark.parametrize(
    "text",
    [
        "Plain text.", " {", '{"name": "Bob"}', '{"name": "Bob", "age": 3}', "a < b", "",
        '<tool_call>\n{"name": "no name at all!", "arguments": {}}', "[TOOL_CALLS] no", "  \n",
        "<tool_call>\n{}", "<tool_call>",
    ],
)  # fmt: skip
def test_what_is_no_call_stays_text(name, text):
    parser = CallParser(renderer(name).call_format)
    parts = [part for character in text for part in parser.push(character)] + parser.flush()
    assert "".join(part.text for part in parts) == text
    assert parser.calls == 0


def test_calls_cut_short_are_calls_and_end():
    parser = CallParser(renderer("qwen3").call_format)
    parts = parser.push('Hm.\n<tool_call>\n{"name": "weather", "arguments": {"city": "K') + parser.flush()
    assert parts == [PlainText("Hm."), CallBegun(0, "weather", ""), CallArguments(0, '{"city": "K')]
    assert parser.calls == 1


def test_one_call_at_most_where_more_are_not_wanted():
    parser = CallParser(renderer("qwen3").call_format, parallel=False)
    call = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
    parts = parser.push(f"{call}\n{call}") + parser.flush()
    assert parts == [CallBegun(0, "weather", ""), CallArguments(0, "{}")]


@pytest.mark.parametrize("name", PRINTED)
def test_the_grammar_takes_what_the_template_prints(name):
    from llguidance import LLMatcher, LLTokenizer

    found = renderer(name)
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = plain_tools([{"name": "weather", "parameters": schema}, {"name": "time"}])
    grammar = LLMatcher.grammar_from_lark(
        call_grammar(found.call_format, found.tokenizer, tools, parallel=True)
    )
    tokenizer = LLTokenizer(found.tokenizer.definition, eos_token=[found.turn_end_id])

    def accepts(*made: tuple[str, dict]) -> bool:
        said = [
            {"id": f"call0000{n}", "type": "function", "function": {"name": name_, "arguments": arguments}}
            for n, (name_, arguments) in enumerate(made)
        ]
        answer = {"role": "assistant", "content": "", "tool_calls": said}
        example = found.example(with_tools([USER, answer], tools))
        ((start, end),) = example.supervised
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        assert not matcher.get_error()
        taken = all(matcher.consume_token(i) for i in example.ids[start : end - 1])
        return taken and matcher.is_accepting()

    assert accepts(("weather", {"city": "Köln"}))
    assert accepts(("time", {"any": 1}))
    assert not accepts(("weather", {}))
    assert not accepts(("nothing", {}))
    if found.call_format.again:
        assert accepts(("time", {}), ("weather", {"city": "a"}))
