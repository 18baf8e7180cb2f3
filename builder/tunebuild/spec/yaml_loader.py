"""YAML to values with positions, under the rules a spec needs.

YAML 1.2's core schema (``2e-4`` is a number, ``no`` is a string), duplicate keys are errors, aliases and
size are bounded. PyYAML does the parsing; the values are made here from its node graph, because that is
where every key still knows its line and column.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunebuild.errors import Diagnostic, Position, TunebuildError

_MAX_BYTES = 1 << 20
_MAX_NODES = 20_000
_MAX_DEPTH = 40

_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

_CORE_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)

#: Keys and indexes from the root to a node.
NodePath = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """A parsed YAML file: its value, and where each key and item stands."""

    file: str
    value: Any = None
    positions: dict[NodePath, Position] = field(default_factory=dict)
    key_positions: dict[NodePath, Position] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What people should know though nothing is wrong, such as a migration."""
    problems: list[Diagnostic] = field(default_factory=list)
    """What is wrong with it as YAML, where it could be read all the same."""
    folders: list[str] = field(default_factory=list)
    """Directories of the files that it extends, from its own."""

    def position(self, path: NodePath, *, key: bool = False) -> Position | None:
        """Position of a path's value (or its key), or of the nearest parent that is in the file."""
        if key and path in self.key_positions:
            return self.key_positions[path]
        while path not in self.positions:
            if not path:
                return Position(self.file, 1, 1)
            path = path[:-1]
        return self.positions[path]

    def adopt(self, other: Document, path: NodePath) -> None:
        """Take over where everything at and below ``path`` stands in another document."""
        for ours, theirs in (
            (self.positions, other.positions),
            (self.key_positions, other.key_positions),
        ):
            ours.update((p, where) for p, where in theirs.items() if p[: len(path)] == path)

    def forget(self, path: NodePath) -> None:
        """Drop what is known of ``path`` and everything below it."""
        for places in (self.positions, self.key_positions):
            for inner in [p for p in places if p[: len(path)] == path]:
                del places[inner]

    def move(self, old: NodePath, new: NodePath, value: Any) -> None:
        """Give a key of a mapping another name, and a value; it still stands where it stood."""
        parent = self.value
        for part in old[:-1]:
            parent = parent[part]
        del parent[old[-1]]
        parent[new[-1]] = value
        places = self.positions.get(old), self.key_positions.get(old)
        self.forget(old)
        if places[0] and places[1]:
            self.positions[new], self.key_positions[new] = places[0], places[1]


def plain_scalar(text: str) -> str | int | float | bool | None:
    """What unquoted text means under YAML 1.2's core schema."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INTEGER.fullmatch(text):
        # 20 digits hold every number that a spec can mean; more is slow to convert.
        return int(text) if len(text) <= 20 else float(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text[2:], 16) if len(text) <= 20 else text
    return float(text) if _FLOAT.fullmatch(text) else text


def parse_dotted(path: str) -> NodePath:
    """``data.train[0].path`` as ``("data", "train", 0, "path")``."""
    parts = re.findall(r"[^.\[\]]+|\[\d+\]", path)
    return tuple(int(p[1:-1]) if p.startswith("[") else p for p in parts)


def load_yaml(file: Path, shown: str | None = None) -> Document:
    """Read one YAML document.

    Args:
        file: the file.
        shown: how messages name it; the path as given if left out.

    Raises:
        TunebuildError: it cannot be read at all. Lesser problems are in the document.
    """
    name = shown or str(file)
    try:
        # No spec is longer, and what is longer may be an archive of gigabytes.
        with file.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise _one("no-spec", f"there is no file {name}", "write one with 'tunebuild init DIR'") from None
    except IsADirectoryError:
        inside = [path for path in sorted(file.glob("*.y*ml")) if path.suffix in (".yaml", ".yml")]
        hint = f"did you mean {' or '.join(map(str, inside[:2]))}?" if inside else ""
        raise _one("unreadable", f"{name} is a directory", hint) from None
    except OSError as error:
        raise _one("unreadable", f"cannot read {name}: {error.strerror}") from None
    return parse_yaml(data, name)


def parse_yaml(data: bytes, name: str) -> Document:
    """:func:`load_yaml` for bytes in memory."""
    if len(data) > _MAX_BYTES:
        message = f"{name} has more than {_MAX_BYTES:,} bytes, so it is no spec"
        raise _one("too-large", message, "give the YAML file, not what was built from it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _one("not-utf8", "the file is not UTF-8", position=Position(name, line, 1)) from None
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(name, mark.line + 1, mark.column + 1) if mark else None
        raise _one("yaml", str(error.problem or "not valid YAML"), position=position) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _one("yaml", f"{name} is not valid YAML: {error}") from None
    document = Document(name)
    builder = _Builder(document)
    if node is not None:
        document.value = builder.build(node, (), 0)
    return document


class _Builder:
    """Walks PyYAML's nodes once. Aliases are followed, so the node budget also bounds alias bombs."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0

    def build(self, node: yaml.Node, path: NodePath, depth: int) -> Any:
        position = self._position(node)
        self.nodes += 1
        if self.nodes > _MAX_NODES or depth > _MAX_DEPTH:
            message = "the document is too deep or its aliases expand to too much"
            raise TunebuildError((Diagnostic("yaml-bomb", message, position=position),))
        self.document.positions[path] = position
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, position)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        return self._mapping(node, path, depth)

    def _mapping(self, node: yaml.MappingNode, path: NodePath, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = self._position(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem("yaml-key", "a key must be plain text", position)
                continue
            key = str(key_node.value)
            if key == "<<" and not key_node.style:
                hint = "use 'extends', or write the keys out"
                self._problem("yaml-merge", "merge keys (<<) are not part of YAML 1.2", position, hint)
                continue
            if key in result:
                first = self.document.key_positions[(*path, key)].line
                self._problem("duplicate-key", f"key '{key}' is here twice; first in line {first}", position)
                continue
            self.document.key_positions[(*path, key)] = position
            result[key] = self.build(value_node, (*path, key), depth + 1)
        return result

    def _scalar(self, node: yaml.ScalarNode, position: Position) -> Any:
        text: str = node.value
        if node.tag not in _CORE_TAGS:
            self._problem("yaml-tag", f"tags such as {node.tag} are not allowed", position)
            return text
        if node.style:  # quoted or block text
            return text
        if _SPECIAL.fullmatch(text):
            self._problem("yaml-number", f"{text} is not a number that a spec can use", position)
        return plain_scalar(text)

    def _position(self, node: yaml.Node) -> Position:
        mark = node.start_mark
        return Position(self.document.file, mark.line + 1, mark.column + 1)

    def _problem(self, code: str, message: str, position: Position, hint: str = "") -> None:
        self.document.problems.append(Diagnostic(code, message, hint, position=position))


def _one(code: str, message: str, hint: str = "", position: Position | None = None) -> TunebuildError:
    return TunebuildError((Diagnostic(code, message, hint, position=position),))
