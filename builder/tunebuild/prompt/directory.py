"""The ``prompt/`` directory of a bundle: template, tokenizer, settings and golden vectors, on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.prompt.golden import make_golden, save_golden
from tunebuild.prompt.messages import Message
from tunebuild.prompt.renderer import PromptSettings, Renderer
from tunebuild.prompt.template import PromptTemplate
from tunebuild.prompt.tokenizer import PromptTokenizer

FORMAT = 1
_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")


def load_prompt(directory: Path) -> Renderer:
    """The renderer of a bundle's ``prompt/`` directory.

    Raises:
        TunebuildError: the directory was written by a newer tunebuild, or was changed since.
    """
    manifest = json.loads((directory / "prompt.json").read_text("utf-8"))
    if manifest["format"] != FORMAT:
        raise fail(
            "prompt-format",
            f"{directory}: prompt format {manifest['format']}, this server reads {FORMAT}",
            "serve it with the tunebuild version that built it",
        )
    renderer = Renderer(
        PromptTemplate(
            manifest["template"],
            (directory / "prompt.jinja").read_text("utf-8"),
            manifest["special_tokens"],
            manifest["date"],
            manifest.get("variables", {}),
        ),
        PromptTokenizer((directory / "tokenizer.json").read_text("utf-8")),
        PromptSettings(
            manifest["system"], tuple(manifest["extra_stop_ids"]), manifest.get("plain_answers", "close")
        ),
    )
    if renderer.digest != manifest["digest"]:
        raise fail(
            "prompt-changed",
            f"{directory}: the prompt's files are not the ones it was built with "
            f"(digest {renderer.digest[:19]}, recorded {manifest['digest'][:19]})",
            "rebuild the image; the template, the tokenizer and the system text belong to the training",
        )
    return renderer


def save_prompt(
    directory: Path,
    renderer: Renderer,
    tokenizer_dir: Path,
    extra_golden: Iterable[tuple[str, list[Message]]] = (),
) -> None:
    """Write a ``prompt/`` directory that :func:`load_prompt` reads.

    Args:
        directory: created if absent.
        renderer: the renderer that training used.
        tokenizer_dir: where the base model's tokenizer files are; the configuration files are copied
            beside ``tokenizer.json`` so that other tools can load the directory too.
        extra_golden: conversations of the data to record besides the built-in probes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "prompt.jinja").write_text(renderer.template.source, "utf-8")
    (directory / "tokenizer.json").write_text(renderer.tokenizer.definition, "utf-8")
    for name in _TOKENIZER_FILES:
        if (source := tokenizer_dir / name).is_file():
            shutil.copyfile(source, directory / name)
    manifest = {
        "format": FORMAT,
        "digest": renderer.digest,
        "template": renderer.template.name,
        "special_tokens": dict(renderer.template.special_tokens),
        "date": renderer.template.pinned_date,
        "variables": dict(renderer.template.variables),
        "system": renderer.settings.system,
        "plain_answers": renderer.settings.plain_answers,
        "turn_end_id": renderer.turn_end_id,
        "extra_stop_ids": list(renderer.settings.extra_stop_ids),
    }
    (directory / "prompt.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "utf-8")
    save_golden(directory / "golden.json", make_golden(renderer, extra_golden))


def special_tokens(tokenizer_dir: Path) -> dict[str, str]:
    """Named special tokens (``bos_token``, ``eos_token``, ...) of a tokenizer directory."""
    config = _read_json(tokenizer_dir / "tokenizer_config.json")
    named = {**_read_json(tokenizer_dir / "special_tokens_map.json"), **config}
    tokens = {}
    for key in ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"):
        value = named.get(key)
        text = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(text, str):
            tokens[key] = text
    return tokens


def base_template(tokenizer_dir: Path) -> str | None:
    """The base model's own chat template, from ``chat_template.jinja`` or the tokenizer's configuration."""
    if (own := tokenizer_dir / "chat_template.jinja").is_file():
        return read_template(own)
    template = _read_json(tokenizer_dir / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several named templates; "default" is the chat one
        named = (t for t in template if isinstance(t, Mapping) and t.get("name") == "default")
        template = next(named, {}).get("template")
    return template if isinstance(template, str) else None


def read_template(file: Path) -> str:
    """A template's text.

    Raises:
        TunebuildError: it is not UTF-8.
    """
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        message = f"{file.name} is not UTF-8: {error.reason} at byte {error.start}"
        raise fail("template-syntax", message, "save it as UTF-8", path="prompt.template") from None


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
