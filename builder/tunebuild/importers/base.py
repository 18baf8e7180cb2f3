"""The base model that a configuration names."""

from __future__ import annotations

import re
from pathlib import Path

from tunebuild.importers.work import Setting, Work
from tunebuild.spec.source_rules import HUB_ID

#: Endings of repositories whose weights are quantized with bitsandbytes already, and their 16-bit twins.
_QUANTIZED = re.compile(r"-(?:unsloth-)?bnb-4bit$", re.IGNORECASE)
_OTHER_BITS = re.compile(r"[-_](?:gptq|awq|aqlm|gguf|int[48]|fp8|nvfp4)\b", re.IGNORECASE)


def carry_base(work: Work, setting: Setting | None) -> None:
    """Carry ``model.base``; what is missing or unusable is said."""
    path = "model.base"
    if setting is None:
        work.draft.set(path, "owner/model", "To be filled in.")
        work.note(f"{path}: the configuration names no model; put in a hub id or ./directory", attention=True)
        return
    if not isinstance(setting.value, str):
        work.refuse_value(setting, "a model's id")
        work.draft.set(path, "owner/model", "To be filled in.")
        work.note(f"{path}: put in the model's hub id or ./directory", attention=True)
        return
    name = setting.value.strip()
    local = Path(name).expanduser()
    if name.startswith((".", "/", "~")) or (not HUB_ID.fullmatch(name) and "/" in name):
        _carry_directory(work, setting, local)
        return
    if _QUANTIZED.search(name):
        plain = _QUANTIZED.sub("", name)
        work.draft.set(path, plain, f"The 16-bit weights of {name}, which qlora quantizes itself.")
        work.ledger.carried(setting.key, path, "the 16-bit weights, which qlora quantizes itself")
        return
    work.draft.set(path, name)
    work.ledger.carried(setting.key, path)
    if _OTHER_BITS.search(name):
        text = (
            f"{path}: the weights of {name} seem to be quantized; name the 16-bit model that they come from"
        )
        work.note(text, attention=True)


def _carry_directory(work: Work, setting: Setting, local: Path) -> None:
    path = "model.base"
    inside = None
    for start in (work.source.parent, work.directory, Path.cwd()):
        there = start / local
        if there.is_dir() and there.absolute().is_relative_to(work.directory):
            inside = f"./{there.absolute().relative_to(work.directory)}"
            break
    if inside is None:
        inside = f"./{local.name}" if local.is_absolute() or ".." in local.parts else f"./{local}"
        work.note(
            f"{path}: link or copy the model {setting.value} beside the spec as {inside}", attention=True
        )
    work.draft.set(path, inside)
    work.ledger.carried(setting.key, path)
