"""The JSON Schema of the spec, generated from the models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from tunebuild import resources
from tunebuild.spec.spec import Spec
from tunebuild.spec.yaml_loader import NodePath

SCHEMA_FILE = "tunebuild-v1.schema.json"


def generate_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``apiVersion: tunebuild/v1``."""
    schema = Spec.model_json_schema(by_alias=True, mode="validation")
    _drop_titles(schema)
    for section in (schema, *schema["$defs"].values()):
        _name_defaults(section)
    # A spec that extends another may leave to it what is required. Editors see one file at a time.
    schema["if"] = {"required": ["extends"]}
    schema["else"] = {"required": schema.pop("required")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:tunebuild:{SCHEMA_FILE}",
        "title": "tunebuild spec",
        **schema,
    }


def schema_text() -> str:
    """The schema as the file in ``schema/`` holds it."""
    return json.dumps(generate_schema(), indent=2, ensure_ascii=False) + "\n"


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


def _name_defaults(section: dict[str, Any]) -> None:
    # pydantic is silent about defaults that a factory makes, which are always the empty section or list.
    for name, field in section.get("properties", {}).items():
        if name not in section.get("required", ()) and "default" not in field:
            field["default"] = [] if field.get("type") == "array" else {}


def _drop_titles(node: Any) -> None:
    # pydantic titles every field with its own name in capitals; editors then show the name twice.
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        for value in node.values():
            _drop_titles(value)
    elif isinstance(node, list):
        for value in node:
            _drop_titles(value)
