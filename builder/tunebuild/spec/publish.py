"""Makes the JSON Schema of the spec out of the models, for ``schema/`` and editors."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from itertools import pairwise
from typing import Any

from tunebuild.spec.schema import SCHEMA_FILE
from tunebuild.spec.section import Section
from tunebuild.spec.spec import Spec


def generate_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``apiVersion: tunebuild/v1``."""
    schema = Spec.model_json_schema(by_alias=True, mode="validation")
    _drop_titles(schema)
    models: list[type[Section]] = [Spec, *Section.__subclasses__()]
    for model in models:
        section = schema if model is Spec else schema["$defs"][model.__name__]
        _describe(section, model)
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


def _describe(section: dict[str, Any], model: type[Section]) -> None:
    """Take fields' descriptions from the texts below them.

    pydantic would do it whenever the models are imported, which is a tenth of the time that validation takes.
    """
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(tree, ast.ClassDef)
    for field, text in pairwise(tree.body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(text, ast.Expr):
            continue
        assert isinstance(field.target, ast.Name)
        assert isinstance(text.value, ast.Constant)
        name = model.model_fields[field.target.id].alias or field.target.id
        section["properties"][name]["description"] = inspect.cleandoc(str(text.value.value))


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
