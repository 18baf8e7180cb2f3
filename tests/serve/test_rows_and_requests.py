"""A conversation gives the same ids as a training row and as a request, however either spells it.

The row is read as the build reads it, and the request as the server does. What the model is asked with must
be what it was trained behind, to the id.
"""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from support import call_templates, templates
from support import tokenizers as families
from support.conversations import TEXT, agrees, asked_with, trained_behind
from tunebuild import resources
from tunebuild.data.formats import RowRejected, to_conversation
from tunebuild.data.unused import as_printed
from tunebuild.prompt import PromptRefused, PromptSettings, PromptTemplate, PromptTokenizer, Renderer
from tunebuild.serve.api.schemas import ChatRequest

#: Prints whatever a turn holds, in the order in which it does: nothing may differ.
DUMP = """\
{{- '<|im_start|>' + (tools | tojson if tools else '') -}}
{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' + m | tojson + '<|im_end|>\\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
# A dump prints an answer before its content, so it is a prompt's template alone.
ASKED = DUMP.replace("m | tojson", "(m.content if m.role == 'assistant' and loop.last else m | tojson)")
# Ends of turns that the tokenizer at hand has not.
_ENDS = ("<|return|>", "<\uff5cend\u2581of\u2581sentence\uff5c>")
OWN = {
    "dump": ASKED,
    **{
        name: getattr(templates, name)
        for name in ("HARMONY", "OPENED", "SWITCHED", "DROPPED", "HALF", "ALWAYS")
    },
    **{name: getattr(call_templates, name) for name in ("LISTED", "BARE", "FENCED", "TAGGED")},
}
SHIPPED = tuple(sorted(resources.shipped_templates()))


@cache
def renderer_of(name: str, system: str | None) -> Renderer:
    tokenizer = PromptTokenizer(families.byte_level().to_str())
    if name in OWN:
        source = OWN[name]
        for end in _ENDS:
            source = source.replace(end, "<|im_end|>")
    else:
        source = resources.path("templates", "prompts", f"{name}.jinja").read_text("utf-8")
    tokens = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    return Renderer(PromptTemplate(name, source, tokens), tokenizer, PromptSettings(system))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), system=st.sampled_from([None, "Be brief."]))
@pytest.mark.parametrize("name", [*OWN, *SHIPPED])
def test_a_row_and_a_request_give_the_same_ids(name, data, system):
    agrees(renderer_of(name, system), data)


@pytest.mark.quick
@pytest.mark.parametrize("name", [*OWN, *SHIPPED])
def test_each_template_takes_a_plain_exchange(name):
    """Templates may refuse tools or system turns, but not all that is compared above."""
    talk = to_conversation({"question": "Well?", "answer": "Yes."}, "qa", {})
    body = {"model": "m", "messages": [{"role": "user", "content": "Well?"}]}
    renderer = renderer_of(name, None)
    assert asked_with(renderer, body) == trained_behind(renderer, talk)


@settings(max_examples=30, deadline=None)
@given(TEXT, TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=2), st.none() | TEXT)
@pytest.mark.parametrize("name", ["dump", "chatml", "llama3", "alpaca"])
def test_rows_of_columns_are_asked_alike(name, asked, answer, history, system):
    renderer = renderer_of(name, None)
    row = {"history": json.dumps(history), "system": system}
    turns = [{"role": "system", "content": system}] if system else []
    for question, reply in history:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    body = {"model": "m", "messages": [*turns, {"role": "user", "content": asked}]}
    names = {"qa": ("question", "answer"), "alpaca": ("instruction", "output")}
    for form, (one, other) in {**names, "prompt_completion": ("prompt", "completion")}.items():
        talk = to_conversation({**row, one: asked, other: answer}, form, {})
        try:
            trained = trained_behind(renderer, talk)
        except PromptRefused:
            assume(False)
        assert asked_with(renderer, body) == trained


@pytest.mark.parametrize("key", ["mood", "weight", "train"])
def test_a_key_that_requests_cannot_have_is_refused_there_and_counted_in_rows(key):
    """Such a row trains a prompt that nobody can ask with; only where it is printed is that so."""
    turn = {"role": "user", "content": "Well?", key: 1}
    with pytest.raises(ValidationError, match=key):
        ChatRequest.model_validate({"model": "m", "messages": [turn]})
    if key != "mood":
        return
    talk = to_conversation({"messages": [turn, {"role": "assistant", "content": "Yes."}]}, "messages", {})
    kinds = {
        name: [(what.kind, what.name) for what in as_printed(renderer_of(name, None), talk.messages)[1]]
        for name in ("dump", "chatml")
    }
    assert kinds == {"dump": [("unasked", "mood")], "chatml": [("key", "mood")]}


@pytest.mark.quick
def test_what_both_sides_refuse():
    for content in ([{"type": "image_url", "image_url": {"url": "x"}}], None, [{"type": "text"}]):
        turn = {"role": "user", "content": content}
        with pytest.raises(RowRejected):
            to_conversation({"messages": [turn, {"role": "assistant", "content": "a"}]}, "messages", {})
        with pytest.raises(ValidationError):
            ChatRequest.model_validate({"model": "m", "messages": [turn]})
