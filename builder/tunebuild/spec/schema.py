"""The JSON Schema of the spec, generated from the models."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tunebuild import resources
from tunebuild.spec.spec import Spec

SCHEMA_FILE = "tunebuild-v1.schema.json"


def generate_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``apiVersion: tunebuild/v1``."""
    schema = Spec.model_json_schema(by_alias=True, mode="validation")
    _drop_titles(schema)
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
