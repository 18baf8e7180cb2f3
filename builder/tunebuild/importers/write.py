"""A draft as the YAML of a spec, in the schema's order, with its comments."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from tunebuild.importers.draft import Draft
from tunebuild.printable import printable_line
from tunebuild.spec.canonical import flow
from tunebuild.spec.spec import Spec

_WIDTH = 110


def spec_text(draft: Draft, heading: Sequence[str]) -> str:
    """The spec as text.

    Args:
        draft: the spec.
        heading: paragraphs that stand above it as comments.
    """
    lines = [line for paragraph in heading for line in _comment(paragraph, "")]
    lines += _section(draft.value, Spec, "", "", draft.comments)
    return "\n".join(lines) + "\n"


def _section(
    value: Mapping[str, Any],
    model: type[BaseModel] | None,
    path: str,
    indent: str,
    comments: Mapping[str, str],
) -> Iterator[str]:
    for key in _ordered(value, model):
        inner, here = value[key], f"{path}.{key}" if path else key
        if here in comments:
            yield from _comment(comments[here], indent)
        below = _model(model, key)
        if isinstance(inner, Mapping) and inner and below is not None:
            yield f"{indent}{key}:"
            yield from _section(inner, below, here, f"{indent}  ", comments)
        elif isinstance(inner, list) and inner and all(isinstance(item, Mapping) for item in inner):
            yield f"{indent}{key}:"
            for index, item in enumerate(inner):
                lines = list(_section(item, below, f"{here}[{index}]", f"{indent}    ", comments))
                first = next(place for place, line in enumerate(lines) if not line.lstrip().startswith("#"))
                yield from (line.removeprefix("  ") for line in lines[:first])
                yield f"{indent}  - {lines[first].strip()}"
                yield from lines[first + 1 :]
        else:
            yield f"{indent}{flow(key)}: {flow(inner)}"


def _ordered(value: Mapping[str, Any], model: type[BaseModel] | None) -> list[str]:
    fields = [field.alias or name for name, field in model.model_fields.items()] if model else []
    return sorted(value, key=lambda key: fields.index(key) if key in fields else len(fields))


def _model(model: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """The section that a key of a section holds, alone or in a list."""
    if model is None:
        return None
    field = next((f for name, f in model.model_fields.items() if (f.alias or name) == key), None)
    waiting = [field.annotation] if field else []
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        waiting.extend(get_args(kind))
    return None


def _comment(text: str, indent: str) -> list[str]:
    # What other tools' files hold may break lines by characters that only YAML knows.
    shown = printable_line(" ".join(text.split()))
    return [f"{indent}# {line}" for line in textwrap.wrap(shown, _WIDTH - len(indent) - 2)]
