"""The prompt as other servers render it: a chat template of transformers, held against the golden vectors."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer

from tunebuild.prompt import Renderer, load_prompt
from tunebuild.prompt.golden import GoldenVector, load_golden
from tunebuild.prompt.messages import split_tools, with_system

FILE_NAME = "chat_template.jinja"

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """What came of it.

    Attributes:
        reproduced: how many golden vectors it gives, id for id.
        differs: the name of the first that it does not; ``None`` if it gives all.
        typed: how many were left out, as a user types a control token in them: transformers reads that as
            one, and the image's own server as text.
    """

    reproduced: int
    differs: str | None
    typed: int


def write_tokenizer(prompt: Path, folder: Path) -> ChatTemplate:
    """Write a tokenizer for transformers, with a chat template if that gives the prompts of the training.

    A template that does not is left out, and the base's own is never taken: a server without one refuses
    to chat, which is better than prompts that the model was not trained on.

    Args:
        prompt: the ``prompt/`` directory.
        folder: where to.
    """
    renderer = load_prompt(prompt)
    for name in _TOKENIZER:
        if (source := prompt / name).is_file():
            shutil.copyfile(source, folder / name)
    if (config := folder / "tokenizer_config.json").is_file():
        settings = json.loads(config.read_text("utf-8"))
        settings.pop("chat_template", None)
        config.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / FILE_NAME).write_text(template_of(renderer), "utf-8")
    found = _compare(renderer, load_golden(prompt / "golden.json"), folder)
    if found.differs is not None:
        (folder / FILE_NAME).unlink()
    return found


def template_of(renderer: Renderer) -> str:
    """The template, with what the spec gives to it where a request does not.

    That is the system text, put first where a conversation brings none, and ``prompt.variables``.
    """
    given = []
    for name, value in sorted(renderer.template.variables.items()):
        literal = json.dumps(value, ensure_ascii=False)
        given.append(f"{{%- if {name} is not defined -%}}{{%- set {name} = {literal} -%}}{{%- endif -%}}")
    if renderer.settings.system is not None:
        turn = json.dumps({"role": "system", "content": renderer.settings.system}, ensure_ascii=False)
        given.append(
            "{%- if not messages or messages[0]['role'] != 'system' -%}"
            f"{{%- set messages = [{turn}] + messages -%}}"
            "{%- endif -%}"
        )
    if not given:
        return renderer.template.source
    # The last tag leaves white space behind it alone: the template counts from its first character.
    return "".join(given).removesuffix("-%}") + "+%}" + renderer.template.source


def _compare(renderer: Renderer, vectors: list[GoldenVector], folder: Path) -> ChatTemplate:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    reproduced = typed = 0
    for vector in vectors:
        turns = with_system(vector.messages, renderer.settings.system)
        if list(renderer.tokenizer.quote(turns)) != turns:
            typed += 1
        elif _ids(tokenizer, vector) == vector.ids:
            reproduced += 1
        else:
            return ChatTemplate(reproduced, vector.name, typed)
    return ChatTemplate(reproduced, None, typed)


def _ids(tokenizer: Any, vector: GoldenVector) -> list[int] | None:
    tools, turns = split_tools(vector.messages)
    try:
        found = tokenizer.apply_chat_template(
            turns, tools=tools or None, add_generation_prompt=True, tokenize=True, return_dict=False
        )
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError):
        return None  # it refuses the conversation, as the renderer may
    return list(found)
