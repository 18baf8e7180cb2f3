"""Golden vectors reproduce from disk, and every way of changing the prompt is caught and named."""

from __future__ import annotations

import json

import pytest

from support import tokenizers as families
from tunebuild.errors import TunebuildError
from tunebuild.prompt import (
    PromptSettings,
    PromptTemplate,
    PromptTokenizer,
    Renderer,
    base_template,
    check_golden,
    load_golden,
    load_prompt,
    save_prompt,
    special_tokens,
)


@pytest.fixture
def prompt_dir(tmp_path):
    base = families.save(families.sentence_piece(), tmp_path / "base")
    template = "{{ bos_token }}" + base_template(base)
    renderer = Renderer(
        PromptTemplate("base", template, special_tokens(base)),
        PromptTokenizer((base / "tokenizer.json").read_text()),
        PromptSettings("Be brief."),
    )
    row = [{"role": "user", "content": "A question of the data"}]
    save_prompt(tmp_path / "prompt", renderer, base, [("data-1", row)])
    return tmp_path / "prompt"


def mutated(renderer, **changes):
    return Renderer(
        PromptTemplate(
            "base",
            changes.get("source", renderer.template.source),
            changes.get("special_tokens", renderer.template.special_tokens),
        ),
        changes.get("tokenizer", renderer.tokenizer),
        changes.get("settings", renderer.settings),
    )


def test_vectors_reproduce_from_disk(prompt_dir):
    vectors = load_golden(prompt_dir / "golden.json")
    assert {v.name for v in vectors} >= {"empty-system", "literal-special-token", "unicode", "data-1"}
    assert check_golden(load_prompt(prompt_dir), vectors) is None


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("one character", lambda r: {"source": r.template.source.replace("assistant\n", "assistant ")}),
        ("dropped BOS", lambda r: {"source": r.template.source.replace("{{ bos_token }}", "")}),
        ("other system text", lambda r: {"settings": PromptSettings("Be long.")}),
        ("no system text", lambda r: {"settings": PromptSettings()}),
        ("doubled BOS", lambda r: {"source": "{{ bos_token }}" + r.template.source}),
    ],
)
def test_a_changed_prompt_is_named(prompt_dir, name, change):
    vectors = load_golden(prompt_dir / "golden.json")
    renderer = load_prompt(prompt_dir)
    changed = change(renderer)
    assert changed.get("source") != renderer.template.source
    mismatch = check_golden(mutated(renderer, **changed), vectors)
    assert mismatch is not None, name
    assert "golden vector" in str(mismatch)
    assert "should be" in str(mismatch)


def test_another_tokenizer_version_is_named(prompt_dir):
    renderer = load_prompt(prompt_dir)
    definition = json.loads(renderer.tokenizer.definition)
    definition["model"]["merges"] = definition["model"]["merges"][40:]
    other = mutated(renderer, tokenizer=PromptTokenizer(json.dumps(definition)))
    assert check_golden(other, load_golden(prompt_dir / "golden.json")) is not None


@pytest.mark.parametrize("name", ["prompt.jinja", "tokenizer.json"])
def test_a_changed_file_is_refused_on_load(prompt_dir, name):
    path = prompt_dir / name
    path.write_text(path.read_text().replace("assistant", "assistent", 1) + " ")
    with pytest.raises(TunebuildError, match=r"not the ones it was built with|cannot be read"):
        load_prompt(prompt_dir)
