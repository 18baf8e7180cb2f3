"""Builds the renderer that a spec asks for, out of the base model's directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunebuild import resources
from tunebuild.errors import fail
from tunebuild.prompt import (
    PromptSettings,
    PromptTemplate,
    PromptTokenizer,
    Renderer,
    base_template,
    special_tokens,
)
from tunebuild.prompt.controls import is_written
from tunebuild.prompt.directory import read_template
from tunebuild.prompt.template import RESERVED
from tunebuild.spec.model import PromptSpec
from tunebuild.spec.words import suggest


def build_renderer(prompt: PromptSpec, base_dir: Path, spec_dir: Path) -> Renderer:
    """The renderer for a spec.

    Args:
        prompt: the spec's section.
        base_dir: the base model's files.
        spec_dir: where a template file is looked for.

    Raises:
        TunebuildError: no such template, no tokenizer, or a template that breaks the contract.
    """
    tokenizer_file = base_dir / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise fail(
            "no-tokenizer",
            "the base model has no tokenizer.json",
            "save it once with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
            path="model.base",
        )
    tokenizer = PromptTokenizer(tokenizer_file.read_text("utf-8"))
    name, source = _template(prompt, base_dir, spec_dir)
    template = PromptTemplate(name, source, special_tokens(base_dir), prompt.date, prompt.variables)
    for place, token in enumerate(prompt.new_tokens):
        if not is_written(template, token):
            message = f"template '{name}' never writes '{token}', and what is typed never becomes it"
            path = f"prompt.new_tokens[{place}]"
            raise fail("new-tokens", message, "write it in the template, or take it out", path=path)
    check_variables(template, {name: f"prompt.variables.{name}" for name in prompt.variables})
    settings = PromptSettings(prompt.system, _stop_ids(base_dir, tokenizer), prompt.plain_answers)
    renderer = Renderer(template, tokenizer, settings)
    if prompt.plain_answers != "close" and not renderer.texts.opens:
        message = f"the prompt of template '{name}' opens no block for reasoning, so this would do nothing"
        raise fail("bad-plain-answers", message, "remove it", path="prompt.plain_answers")
    return renderer


def check_variables(template: PromptTemplate, paths: Mapping[str, str]) -> None:
    """Every variable that a spec names is one that the template reads.

    Args:
        template: the template.
        paths: each variable's name -> where the spec names it.

    Raises:
        TunebuildError: the first one that would do nothing, or whose value the renderer itself sets.
    """
    reads = sorted(template.reads)
    for name, path in paths.items():
        if name in RESERVED or name in template.special_tokens:
            message = f"'{name}' is set by tunebuild itself"
            raise fail("bad-variable", message, "remove it", path=path)
        if name not in reads:
            message = f"template '{template.name}' never reads the variable '{name}'"
            hint = suggest(name, reads) or "it reads none besides the conversation"
            raise fail("bad-variable", message, hint, path=path)


def _template(prompt: PromptSpec, base_dir: Path, spec_dir: Path) -> tuple[str, str]:
    wanted = prompt.template
    if not isinstance(wanted, str):
        return Path(wanted.file).name, read_template(spec_dir / wanted.file)
    if wanted == "base":
        source = base_template(base_dir)
        if source is None:
            shipped = ", ".join(resources.shipped_templates())
            raise fail(
                "no-chat-template",
                "the base model has no chat template of its own",
                f"choose a shipped one ({shipped}) or {{file: prompt.jinja}}",
                path="prompt.template",
            )
        return "base", source
    return wanted, resources.path("templates", "prompts", f"{wanted}.jinja").read_text("utf-8")


def _stop_ids(base_dir: Path, tokenizer: PromptTokenizer) -> tuple[int, ...]:
    """Where the base model itself ends: its tokenizer's end token and its generation settings."""
    found: set[int] = set()
    if end := special_tokens(base_dir).get("eos_token"):
        found.update(i for i in [tokenizer.token_id(end)] if i is not None)
    for name in ("generation_config.json", "config.json"):
        path = base_dir / name
        config: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        named = config.get("eos_token_id")
        ids = named if isinstance(named, list) else [] if named is None else [named]
        if not all(type(i) is int for i in ids):
            raise fail(
                "bad-model",
                f"the base's {name} has an eos_token_id that is no token's id",
                "fetch or save the model again",
                path="model.base",
            )
        found.update(ids)
    return tuple(sorted(found))
