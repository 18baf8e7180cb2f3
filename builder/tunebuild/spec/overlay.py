"""``extends:`` and ``--set``: one document out of several, in which every value keeps its place.

Mappings are merged key by key, everything else is replaced, and ``null`` takes a key of the base away.
A relative path belongs to the file that wrote it: what a base names is beside the base. In the one document
that comes out, all paths start at the directory of the spec that is built.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunebuild.errors import Diagnostic, Position, TunebuildError
from tunebuild.spec.migrations import migrate
from tunebuild.spec.schema import types_at
from tunebuild.spec.yaml_loader import Document, NodePath, load_yaml, parse_dotted, parse_yaml

_MAX_CHAIN = 10
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def compose(file: Path, overrides: Sequence[str] = ()) -> Document:
    """Read a spec, what it extends, and what the command line sets.

    Args:
        file: the spec.
        overrides: ``PATH=VALUE`` texts, applied in order.

    Raises:
        TunebuildError: a file is missing or not YAML, ``extends`` goes in a circle, or an override cannot
            be placed.
    """
    document = _read(file, str(file), ())
    for text in overrides:
        _override(document, text)
    return document


def _read(file: Path, shown: str, chain: tuple[Path, ...]) -> Document:
    own = migrate(load_yaml(file, shown))
    if not isinstance(own.value, dict) or "extends" not in own.value:
        return own
    name = own.value.pop("extends")
    where = own.position(("extends",))
    if not isinstance(name, str) or not name:
        raise _at(where, "wrong-type", "must be the path of another spec", "for example: ../base.yaml")
    base = file.parent / name
    chain = (*chain, file.resolve())
    if base.resolve() in chain:
        circle = " -> ".join(path.name for path in (*chain[chain.index(base.resolve()) :], base))
        raise _at(where, "extends-circle", f"goes in a circle: {circle}")
    if len(chain) > _MAX_CHAIN:
        raise _at(where, "extends-depth", f"the chain is longer than {_MAX_CHAIN} files")
    if not base.is_file():
        raise _at(where, "no-file", f"there is no file '{name}'", f"looked for {base}")
    below = _read(base, os.path.normpath(Path(shown).parent / name), chain)
    _rebase(below, os.path.dirname(name))  # noqa: PTH120 - as written: a link in it stays one
    return _merged(below, own)


def _rebase(document: Document, to: str) -> None:
    """Have a base's relative paths start at another directory, from which ``to`` leads to its own."""
    document.folders = [_led(to, folder) for folder in (*document.folders, ".")]
    value = document.value
    if os.path.normpath(to) == "." or not isinstance(value, dict):
        return
    data = _section(value, "data")
    for source in (*_list(data, "train"), *_list(_section(data, "eval"), "files")):
        if isinstance(source, dict) and source.get("hub") is None:
            _lead(source, "path", to)
    _lead(_section(_section(value, "prompt"), "template"), "file", to)
    model, tasks = _section(value, "model"), _list(_section(value, "evaluation"), "tasks")
    if isinstance(base := model.get("base"), str) and base.startswith(("./", "../")):
        model["base"] = _marked(_led(to, base))
    for index, name in enumerate(tasks):
        if isinstance(name, str) and name.startswith(("./", "../")):
            tasks[index] = _marked(_led(to, name))


def _section(value: dict[str, Any], name: str) -> dict[str, Any]:
    # Nothing has been validated yet; what is no mapping is left for the schema to name.
    return found if isinstance(found := value.get(name), dict) else {}


def _list(value: dict[str, Any], name: str) -> list[Any]:
    return found if isinstance(found := value.get(name), list) else []


def _lead(section: dict[str, Any], name: str, to: str) -> None:
    if isinstance(path := section.get(name), str) and path:
        section[name] = _led(to, path)


def _led(to: str, path: str) -> str:
    return os.path.normpath(os.path.join(to, path))  # noqa: PTH118 - an absolute path stays one


def _marked(path: str) -> str:
    """A path of a directory, as it is told from a name."""
    return path if path.startswith(("../", "/")) else f"./{path}"


def _merged(base: Document, over: Document) -> Document:
    result = Document(over.file, notes=[*base.notes, *over.notes], problems=[*base.problems, *over.problems])
    result.folders = [*base.folders, *over.folders]
    result.value = _merge(base, over, base.value, over.value, (), result)
    return result


def _merge(base: Document, over: Document, low: Any, high: Any, path: NodePath, result: Document) -> Any:
    """The merged value at ``path``; notes where each part of it stands."""
    if not (isinstance(low, dict) and isinstance(high, dict)):
        result.adopt(over, path)
        return high
    result.positions[path] = over.positions[path]
    merged = {}
    for key in (*low, *(k for k in high if k not in low)):
        inner = (*path, key)
        if key not in high:
            merged[key] = low[key]
            result.adopt(base, inner)
        elif key not in low:
            merged[key] = high[key]
            result.adopt(over, inner)
        elif high[key] is not None:
            result.key_positions[inner] = over.key_positions[inner]
            merged[key] = _merge(base, over, low[key], high[key], inner, result)
    return merged


def _override(document: Document, text: str) -> None:
    name, separator, written = text.partition("=")
    where = Position("--set", 0, 0)  # without the value, which could be a secret
    path = parse_dotted(name)
    if not separator or not path:
        raise _at(where, "bad-set", "needs PATH=VALUE", "for example: --set tuning.epochs=1", name)
    if not written.strip():
        hint = "null gives it its default, '\"\"' is empty text; is a variable unset?"
        raise _at(where, "bad-set", "has no value", hint, name)
    if path[0] == "extends":
        raise _at(where, "bad-set", "'extends' belongs in a file", "", name)
    value = _typed(name, path, written, where)
    parent: Any = document.value
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        here = path[: depth + 1]
        if isinstance(part, int) and isinstance(parent, list):
            if part > len(parent) or (part == len(parent) and not last):
                raise _at(where, "bad-set", f"the list has {len(parent)} items", "they count from 0", name)
            if part == len(parent):
                parent.append(None)
        elif not isinstance(part, str) or not isinstance(parent, dict):
            kind = "a list" if isinstance(part, int) else "a mapping"
            raise _at(where, "bad-set", f"what is before '{part}' is not {kind}", "", name)
        elif part not in parent or (parent[part] is None and not last):
            parent[part] = {}
        if not last:
            parent = parent[part]
            continue
        document.forget(here)
        document.positions[here] = document.key_positions[here] = where
        if value is None and isinstance(part, str):
            del parent[part]
        else:
            parent[part] = value


def _typed(name: str, path: NodePath, written: str, where: Position) -> Any:
    """The value as the schema wants it: ``--set image.tag=1.0`` is text because a tag is text."""
    try:
        document = parse_yaml(written.encode(), where.file)
        if document.problems:
            raise TunebuildError(tuple(document.problems))
    except TunebuildError as error:
        places = tuple(replace(d, position=where, path=name) for d in error.diagnostics)
        raise TunebuildError(places) from None
    value = document.value
    wanted = types_at(path)
    kind = _JSON_TYPES.get(type(value), "")
    fits = kind in wanted or (kind == "integer" and "number" in wanted)
    return written if "string" in wanted and kind and not fits else value


def _at(where: Position | None, code: str, message: str, hint: str = "", path: str = "") -> TunebuildError:
    if not path and where and where.line:
        path = "extends"
    return TunebuildError((Diagnostic(code, message, hint, path, where),))
