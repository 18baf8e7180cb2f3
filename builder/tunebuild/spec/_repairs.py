"""What a value or a key was probably meant to be: the slips that are one step from what the schema takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from tunebuild.spec.canonical import flow
from tunebuild.spec.foreign import foreign_hint
from tunebuild.spec.schema import published_schema
from tunebuild.spec.words import close, dotted, suggest
from tunebuild.spec.yaml_loader import NodePath, plain_scalar

# What other tools call it.
_KEYS = {
    "base": ("base_model", "model_name", "model_name_or_path", "id", "name", "path", "repo"),
    "path": ("file", "files", "data_files", "filename"),
    "hub": ("dataset", "repo"),
    "format": ("type",),
    "fraction": ("val_set_size", "test_size", "validation_split"),
    "template": ("chat_template",),
    "r": ("rank", "lora_r", "lora_rank"),
    "alpha": ("lora_alpha",),
    "dropout": ("lora_dropout",),
    "targets": ("target_modules", "lora_target_modules", "modules"),
    "learning_rate": ("lr",),
    "epochs": ("num_train_epochs",),
    "schedule": ("lr_scheduler", "lr_scheduler_type"),
    "micro_batch_size": ("per_device_train_batch_size",),
    "max_length": ("max_seq_length", "max_seq_len", "sequence_len", "cutoff_len"),
    "max_grad_norm": ("gradient_clipping",),
    "max_tokens": ("max_new_tokens",),
    "context": ("max_model_len", "n_ctx", "max_length"),
}
_WORDS = {
    "gpu": "cuda",
    "nvidia": "cuda",
    "bf16": "bfloat16",
    "fp32": "float32",
    "none": "off",
    "chat": "messages",
    "openai": "messages",
    "yes": True,
    "on": True,
    "no": False,
    "off": False,
}
_SURE = 0.75  # likeness from which on a word is taken for a misspelling before anything else is tried
_LISTED = 3


def better_value(value: Any, schema: dict[str, Any]) -> str:
    """A hint with a value of the schema that says the same; empty if none is one step away."""
    if not isinstance(value, str | bool) and isinstance(value, int | float) and _fits(str(value), schema):
        return "put it in quotes, so that it is text"  # without showing it: 1.10 is 1.1 by now
    if value is None:
        return "write something behind it, or take it out"
    found = next(_fitting(value, schema, wrap=True), None)
    return "" if found is None else f"did you mean {flow(found)}?"


def better_word(value: Any, allowed: list[str], schema: dict[str, Any]) -> str:
    """The same for one of some words."""
    likely = close(str(value), allowed, _SURE)
    return (
        f"did you mean '{likely}'?" if likely else better_value(value, schema) or suggest(str(value), allowed)
    )


def better_key(key: str, mapping: dict[str, Any], known: list[str], path: NodePath) -> str:
    """A hint for a key that a mapping at ``path`` does not know: misspelt, another tool's, or a level off."""
    plain = key.lower().replace("-", "_")
    theirs = next((ours for ours, names in _KEYS.items() if ours in known and plain in names), None)
    likely = theirs if theirs not in mapping else None
    here = dotted(tuple("[]" if isinstance(part, int) else part for part in path)).replace(".[]", "[]")
    if not likely and (foreign := foreign_hint(key, here)):
        return foreign
    if likely := close(key, known, _SURE) or likely:
        return f"did you mean '{likely}'?"
    below, above = f"{here}." if here else "", here.rpartition(".")[0]
    elsewhere = [
        section
        for section, keys in _sections().items()
        if key in keys and section != here and (section.startswith(below) or section == above)
    ]
    if 0 < len(elsewhere) <= _LISTED:
        return f"did you mean {' or '.join(f'{s}.{key}' if s else key for s in elsewhere)}?"
    return suggest(key, known)


def _fitting(value: Any, schema: dict[str, Any], *, wrap: bool) -> Iterator[Any]:
    """Values of the schema that say the same; in a list or under a key, if need be."""
    schema = _resolved(schema)
    said = [value, *_spellings(value, schema)]
    yield from (one for one in said if _fits(one, schema))
    for branch in schema.get("anyOf", ()):
        yield from _fitting(value, branch, wrap=wrap)
    for one in said:
        if isinstance(schema.get("items"), dict):
            parts = re.split(r" *, *", one) if isinstance(one, str) else [one]
            inner = [next(_fitting(part, schema["items"], wrap=True), None) for part in parts]
            yield from (made for made in [inner] if _fits(made, schema))
        if wrap and not isinstance(one, dict | list):
            for key, field in schema.get("properties", {}).items():
                yield from (
                    made for inner in _fitting(one, field, wrap=False) if _fits(made := {key: inner}, schema)
                )


def _spellings(value: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """Other ways to write a value."""
    if isinstance(value, dict | list) and len(value) == 1:
        (value,) = value.values() if isinstance(value, dict) else value
        yield value
    if value is False:
        yield "off"
    if isinstance(value, str):
        text = value.strip()
        yield _WORDS.get(text.lower())
        yield plain_scalar(text)
        if re.fullmatch(r"\d{1,3}([,_]\d{3})+", text):
            yield int(re.sub(r"[,_]", "", text))
        if match := re.fullmatch(r"(\d+(?:\.\d+)?) *%", text):
            yield float(match[1]) / 100
        if "A-Z" not in schema.get("pattern", "A-Z"):
            yield re.sub(r"[^a-z0-9._/:-]+", "-", text.lower()).strip("-")
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([mg]i?b?)?", str(value).lower())
    if match and "i?B" in schema.get("pattern", ""):
        unit = match[2] or "g"
        yield match[1] + unit[0].upper() + ("iB" if "i" in unit else "B")


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    return value is not None and _validator().evolve(schema=schema).is_valid(value)


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(published_schema())


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    section: dict[str, Any] = published_schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    return section


@cache
def _sections() -> dict[str, frozenset[str]]:
    """The keys of every section, by its dotted path; items of lists as ``[]``."""
    found: dict[str, frozenset[str]] = {}

    def walk(schema: dict[str, Any], path: str) -> None:
        schema = _resolved(schema)
        for branch in schema.get("anyOf", ()):
            walk(branch, path)
        if isinstance(schema.get("items"), dict):
            walk(schema["items"], f"{path}[]")
        if fields := schema.get("properties"):
            found[path] = frozenset(fields)
            for name, field in fields.items():
                walk(field, f"{path}.{name}" if path else name)

    walk(published_schema(), "")
    return found
