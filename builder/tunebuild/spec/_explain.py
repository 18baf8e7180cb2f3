"""Turns JSON Schema violations into sentences about a spec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from tunebuild.errors import Diagnostic
from tunebuild.spec._repairs import better_key, better_value, better_word
from tunebuild.spec.schema import validation_schema
from tunebuild.spec.words import dotted
from tunebuild.spec.yaml_loader import Document, NodePath

_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "nothing",
}
_LIMITS = {
    "minimum": "must be at least",
    "maximum": "must be at most",
    "exclusiveMinimum": "must be greater than",
    "exclusiveMaximum": "must be less than",
    "minLength": "is shorter than",
    "maxLength": "is longer than",
    "minItems": "has fewer items than",
    "maxItems": "has more items than",
}


def violations(document: Document) -> Iterator[Diagnostic]:
    """Everything in which a document breaks the published schema."""
    for error in _validator().iter_errors(document.value):
        yield from explain(error, document)


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(validation_schema())


def explain(error: ValidationError, document: Document) -> Iterator[Diagnostic]:
    """The diagnostics of one violation; several for several unknown keys."""
    path: NodePath = tuple(error.absolute_path)
    rule = str(error.validator)
    schema: Any = error.schema
    expected: Any = error.validator_value
    value: Any = error.instance
    if schema.get("writeOnly") or any(s.get("writeOnly") for s in schema.get("anyOf", ())):
        # The value could be the secret itself, and messages end up in logs.
        hint = "never write a secret into a spec; name the variable that holds it, such as ${env:HF_TOKEN}"
        yield Diagnostic("secret", "must be ${env:NAME}", hint, dotted(path), document.position(path))
    elif rule in ("anyOf", "oneOf"):
        yield from _explain_union(error, document)
    elif rule == "additionalProperties":
        known = list(schema.get("properties", {}))
        for key in value:
            if key not in known:
                place = (*path, key)
                where = document.position(place, key=True)
                hint = better_key(key, value, known, path)
                yield Diagnostic("unknown-key", "unknown key", hint, dotted(place), where)
    elif rule == "required":
        for key in expected:
            if key not in value:
                example = _example(schema["properties"].get(key, {}))
                place = (*path, key)
                yield Diagnostic(
                    "missing-key", "is required", example, dotted(place), document.position(path)
                )
    else:
        code, message, hint = _one(rule, expected, schema, value)
        yield Diagnostic(code, message, hint, dotted(path), document.position(path))


def _one(rule: str, expected: Any, schema: dict[str, Any], value: Any) -> tuple[str, str, str]:
    if rule == "type":
        names = [expected] if isinstance(expected, str) else expected
        wanted = " or ".join(_TYPES[n] for n in names)
        hint = better_value(value, schema) or _example(schema)
        return "wrong-type", f"must be {wanted}, not {_show(value)}", hint
    if rule in ("enum", "const"):
        allowed = [str(v) for v in (expected if rule == "enum" else [expected])]
        return "wrong-value", f"cannot be {_show(value)}", better_word(value, allowed, schema)
    if rule == "pattern":
        hint = better_value(value, schema) or _example(schema)
        return "wrong-form", f"{_show(value)} does not have the right form", hint
    if rule in _LIMITS:
        return "out-of-range", f"{_show(value)} {_LIMITS[rule]} {expected}", ""
    return "invalid", f"{_show(value)} breaks the rule '{rule}: {expected}'", _example(schema)


def _explain_union(error: ValidationError, document: Document) -> Iterator[Diagnostic]:
    """A value that fits no branch: speak of the branch whose type it has, if there is just one."""
    path: NodePath = tuple(error.absolute_path)
    schema: Any = error.schema
    branches: Any = error.validator_value
    inner: dict[int, list[ValidationError]] = {}
    for found in error.context or ():
        inner.setdefault(int(found.schema_path[0]), []).append(found)
    typed = [
        errors
        for errors in inner.values()
        if not any(e.validator == "type" and len(e.absolute_path) == len(path) for e in errors)
    ]
    words = [word for branch in branches for word in _allowed(branch)]
    hint = ""
    if not isinstance(error.instance, dict | list):
        hint = better_word(error.instance, words, schema) if words else better_value(error.instance, schema)
    form = len(typed) == 1 and all(found.validator == "pattern" for found in typed[0])
    if form or (len(typed) == 1 and not hint.startswith("did you mean")):
        for found in typed[0]:
            for one in explain(found, document):
                yield replace(one, hint=one.hint or _example(schema))
        return
    kinds = [
        " or ".join(f"'{word}'" for word in _allowed(branch))
        or _TYPES.get(branch.get("type", "object"), "a mapping")
        for branch in branches
    ]
    message = f"must be {' or '.join(kinds)}, not {_show(error.instance)}"
    hint = hint or better_value(error.instance, schema) or _example(schema)
    yield Diagnostic("wrong-type", message, hint, dotted(path), document.position(path))


def _allowed(schema: dict[str, Any]) -> list[str]:
    """The words that a schema takes, where it takes nothing else."""
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _example(schema: dict[str, Any]) -> str:
    examples = schema.get("examples")
    return f"for example: {_show(examples[0])}" if examples else ""


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "a mapping"
            if len(value) > 3
            else "{" + ", ".join(f"{k}: {_show(v)}" for k, v in value.items()) + "}"
        )
    if isinstance(value, list | tuple):
        return "a list" if len(value) > 3 else "[" + ", ".join(_show(v) for v in value) + "]"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"'{text}'" if isinstance(value, str) else text
