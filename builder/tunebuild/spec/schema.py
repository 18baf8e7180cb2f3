"""The published JSON Schema of the spec, and what it says of a field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from tunebuild import resources
from tunebuild.spec.yaml_loader import NodePath

SCHEMA_FILE = "tunebuild-v1.schema.json"


@cache
def published_schema() -> dict[str, Any]:
    """The schema that ships with the package; validation uses this one, so editors and we agree."""
    schema: dict[str, Any] = json.loads(resources.path("schema", SCHEMA_FILE).read_text("utf-8"))
    return schema


def validation_schema() -> dict[str, Any]:
    """The published schema for a spec that is whole: everything it extends has been merged into it."""
    schema = dict(published_schema())
    del schema["if"]
    schema |= schema.pop("else")
    return schema


def schema_at(path: NodePath) -> Iterator[dict[str, Any]]:
    """The schemas that a path's value must fit one of; none if there is no such field."""
    yield from _descend(published_schema(), path)


def types_at(path: NodePath) -> set[str]:
    """JSON types that a field takes, e.g. ``{"string", "null"}``; empty if there is no such field."""
    found: set[str] = set()
    for schema in schema_at(path):
        kind = schema.get("type", "string" if {"const", "enum"} & schema.keys() else ())
        found.update([kind] if isinstance(kind, str) else kind)
    return found


def _descend(schema: dict[str, Any], path: NodePath) -> Iterator[dict[str, Any]]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from _descend(published_schema()["$defs"][name], path)
    elif "anyOf" in schema:
        for branch in schema["anyOf"]:
            yield from _descend(branch, path)
    elif not path:
        yield schema
    elif isinstance(path[0], int):
        if isinstance(inner := schema.get("items"), dict):
            yield from _descend(inner, path[1:])
    elif isinstance(inner := schema.get("properties", {}).get(path[0]), dict) or isinstance(
        inner := schema.get("additionalProperties"), dict
    ):
        yield from _descend(inner, path[1:])
