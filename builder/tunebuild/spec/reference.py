"""The reference page of the spec, generated from the schema so that it cannot be behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tunebuild.spec.publish import generate_schema

_HEAD = """\
# The spec

Generated from the models by `make schema`. The same as a JSON Schema, for editors:
[tunebuild-v1.schema.json](../schema/tunebuild-v1.schema.json). With a YAML language server, a spec whose
first line is

```yaml
# yaml-language-server: $schema=tunebuild-v1.schema.json
```

(the path or address of that file) is completed and checked as it is written.

YAML 1.2: `2e-4` is a number, `no` is text. An unknown key is an error at every depth. Relative paths start at
the directory of the file that names them; those of `--set` at that of the spec that is built.

"""


def reference_page() -> str:
    """Markdown."""
    return _HEAD + "\n".join(_section(generate_schema(), "", generate_schema()["$defs"], 2)) + "\n"


def _section(section: dict[str, Any], path: str, definitions: dict[str, Any], level: int) -> Iterator[str]:
    inner: list[tuple[str, dict[str, Any]]] = []
    yield "| key | type | default | |"
    yield "|---|---|---|---|"
    required = section.get("required", section.get("else", {}).get("required", ()))
    for name, field in section["properties"].items():
        names = list(_references(field))
        target = definitions[names[0]] if names else {}
        inner += [(f"{path}{name}{'[]' if 'items' in field else ''}", definitions[n]) for n in names]
        text = (
            (field.get("description") or target.get("description", "")).replace("\n", " ").replace("|", "\\|")
        )
        example = field.get("examples", [None])[0]
        shown = "" if names or example is None else f" E.g. `{_json(example)}`."
        default = "required" if name in required else f"`{_json(field.get('default'))}`"
        yield f"| `{path}{name}` | {_kind(field)} | {default} | {text}{shown} |"
    yield ""
    for name, target in inner:
        yield f"{'#' * level} `{name}`"
        yield ""
        yield target.get("description", "").replace("\n", " ")
        yield ""
        yield from _section(target, f"{name}.", definitions, min(level + 1, 4))


def _references(field: dict[str, Any]) -> Iterator[str]:
    """Names of the sections that a field may hold."""
    if "$ref" in field:
        yield field["$ref"].rpartition("/")[2]
    for branch in (*field.get("anyOf", ()), *([field["items"]] if "items" in field else ())):
        yield from _references(branch)


def _kind(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return "mapping"
    if "anyOf" in field:
        return " or ".join(_kind(b) for b in field["anyOf"] if b.get("type") != "null")
    if "enum" in field or "const" in field:
        return " or ".join(f"`{v}`" for v in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}"
    return {"object": "mapping", "integer": "whole number", "boolean": "true or false", "string": "text"}.get(
        field["type"], field["type"]
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
