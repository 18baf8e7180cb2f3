"""Variables of a template: the same in training and in requests, and never one that does nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import tokenizers as families
from tunebuild.data.prompt_source import build_renderer
from tunebuild.errors import TunebuildError
from tunebuild.prompt import load_prompt, save_prompt
from tunebuild.spec.model import PromptSpec, TemplateFile

TEMPLATE = (
    "{%- if tone is defined -%}{{- '[' ~ tone ~ ']' -}}{%- endif -%}"
    + families.CHATML
    + "{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false -%}"
    "{{- '-\\n' -}}{%- endif -%}"
)
TALK = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "-\nSo."}]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("base")
    families.save(families.byte_level(), directory)
    (directory / "t.jinja").write_text(TEMPLATE)
    return directory


def renderer_of(base, **variables):
    prompt = PromptSpec(template=TemplateFile(file="t.jinja"), variables=variables)
    return build_renderer(prompt, base, base)


def test_training_and_requests_render_with_the_variables_of_the_spec(base):
    plain, dry = renderer_of(base), renderer_of(base, tone="dry", enable_thinking=False)
    assert dry.prompt_text(TALK[:1]).startswith("[dry]")
    assert dry.prompt_text(TALK[:1]).endswith("assistant\n-\n")
    prompt, example = dry.prompt_ids(TALK[:1]), dry.example(TALK)
    assert example.ids[: len(prompt)] == prompt
    assert example.supervised == ((len(prompt), len(example.ids)),)
    assert plain.example(TALK).supervised[0][0] < len(prompt)


def test_a_request_may_render_with_other_values(base):
    dry, wet = renderer_of(base, tone="dry"), renderer_of(base, tone="wet")
    assert dry.prompt_ids(TALK[:1], {"tone": "wet"}) == wet.prompt_ids(TALK[:1])
    assert dry.prompt_ids(TALK[:1], {}) == dry.prompt_ids(TALK[:1]) != wet.prompt_ids(TALK[:1])


values = st.one_of(st.booleans(), st.integers(-5, 5), st.text("abc", max_size=3))


@given(st.dictionaries(st.sampled_from(["tone", "enable_thinking"]), values))
def test_the_digest_tells_variables_apart(base, variables):
    plain, other = renderer_of(base), renderer_of(base, **variables)
    assert (other.digest == plain.digest) == (not variables)
    if "enable_thinking" in variables:
        flipped = {**variables, "enable_thinking": not variables["enable_thinking"]}
        assert renderer_of(base, **flipped).digest != other.digest


def test_a_saved_prompt_keeps_its_variables(base, tmp_path):
    renderer = renderer_of(base, tone="dry", enable_thinking=False)
    save_prompt(tmp_path, renderer, base)
    again = load_prompt(tmp_path)
    assert again.digest == renderer.digest
    assert again.prompt_ids(TALK[:1]) == renderer.prompt_ids(TALK[:1])
    changed = (tmp_path / "prompt.json").read_text().replace('"dry"', '"wet"')
    (tmp_path / "prompt.json").write_text(changed)
    with pytest.raises(TunebuildError, match="not the ones it was built with"):
        load_prompt(tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("enable_thinkin", "did you mean 'enable_thinking'"), ("messages", "remove it"), ("m", "one of")],
)
def test_a_variable_that_would_do_nothing_is_refused(base, name, hint):
    with pytest.raises(TunebuildError) as refused:
        renderer_of(base, **{name: True})
    (problem,) = refused.value.diagnostics
    assert (problem.code, problem.path) == ("bad-variable", f"prompt.variables.{name}")
    assert hint in problem.hint
