"""Reads a Python script or a notebook for the calls that set a training up, by its syntax tree.

Nothing of it is run. A name is followed to the value that is assigned to it last before the call.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunebuild.errors import fail
from tunebuild.importers._literals import dotted_name, source_of, value_of
from tunebuild.importers.ledger import Unresolved

_MOST_CALLS = 20_000
#: Methods that change a list or mapping in place.
_CHANGING = frozenset(
    ("append", "extend", "insert", "remove", "pop", "clear", "update", "setdefault", "popitem")
)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is found in a script.

    Attributes:
        name: what is called, such as ``FastLanguageModel.from_pretrained``.
        positional: values of the arguments without names.
        named: values of those with names; those of ``**mapping`` by their own, where it is known.
    """

    name: str
    positional: tuple[Any, ...]
    named: Mapping[str, Any]

    @property
    def method(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


@dataclass(slots=True)
class Script:
    """What could be read of a script.

    Attributes:
        calls: all calls, in order.
        assigned: attributes that are set on what a call returned, such as ``args.seed``: the method that was
            called, and the attribute as it is written.
        unread: numbers of a notebook's code cells that are no Python.
    """

    calls: list[Call] = field(default_factory=list)
    assigned: list[tuple[str, str]] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)


def read_script(text: str, name: str) -> Script:
    """The calls of a script, or of a notebook's code cells.

    Args:
        text: of the file.
        name: of the file, which tells a notebook by its ending.

    Raises:
        TunebuildError: if it is neither.
    """
    found = Script()
    statements: list[ast.stmt] = []
    try:
        if name.endswith(".ipynb"):
            for number, source in enumerate(_cells(text, name), 1):
                try:
                    statements += ast.parse(source).body
                except (SyntaxError, ValueError):
                    found.unread.append(number)
        else:
            statements += ast.parse(text).body
        _Reader(found).read(statements, {}, sure=True)
    except SyntaxError as error:
        message = f"{name}:{error.lineno} is not Python: {error.msg}"
        raise fail("import-script", message, "give a script that Python runs, or a notebook") from None
    except (ValueError, RecursionError, MemoryError) as error:
        message = f"{name} cannot be read as Python: {error or type(error).__name__}"
        raise fail("import-script", message, "give the script that trains") from None
    return found


def _cells(text: str, name: str) -> Iterator[str]:
    """The code of each code cell; lines for the shell do nothing."""
    hint = "save the notebook again, or export it as a script"
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise fail("import-script", f"{name} is not a notebook: {error}", hint) from None
    cells = notebook.get("cells") if isinstance(notebook, Mapping) else None
    if not isinstance(cells, list):
        raise fail("import-script", f"{name} has no cells", hint)
    for cell in cells:
        if isinstance(cell, Mapping) and cell.get("cell_type") == "code":
            source = cell.get("source")
            code = "".join(map(str, source)) if isinstance(source, list) else str(source or "")
            # A first line with %% says that the cell is another language, or a file.
            yield "" if code.lstrip().startswith("%%") else "\n".join(map(_python, code.splitlines()))


def _python(line: str) -> str:
    """A line for the shell as one that does nothing, at the same depth."""
    bare = line.lstrip()
    return f"{line[: len(line) - len(bare)]}pass" if bare.startswith(("%", "!", "?")) else line


class _Reader:
    """Goes over statements in order, and knows what names stand for where a call is made."""

    def __init__(self, found: Script) -> None:
        self.found = found
        self.returned: dict[str, str] = {}  # by name, the method whose result it is

    def read(self, statements: Sequence[ast.stmt], known: dict[str, Any], *, sure: bool) -> None:
        """Read statements.

        Args:
            statements: one after the other.
            known: values by name, which assignments change.
            sure: whether they run just once, so that what they assign is the value.
        """
        for statement in statements:
            self._statement(statement, known, sure)

    def _statement(self, node: ast.stmt, known: dict[str, Any], sure: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = dict(known)
            arguments = node.args
            for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                inner[one.arg] = Unresolved(one.arg)
            self.read(node.body, inner, sure=True)
        elif isinstance(node, ast.ClassDef):
            self.read(node.body, dict(known), sure=True)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            self._assignment(node, known, sure)
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                self._calls(item.context_expr, known)
            self.read(node.body, known, sure=sure)
        else:
            self._compound(node, known, sure)

    def _compound(self, node: ast.stmt, known: dict[str, Any], sure: bool) -> None:
        if isinstance(node, ast.For | ast.AsyncFor):
            for target in _names(node.target):
                known[target] = Unresolved(target)
        for name, part in ast.iter_fields(node):
            if isinstance(part, ast.expr):
                self._calls(part, known)
            elif isinstance(part, list) and part and isinstance(part[0], ast.stmt):
                # What runs under a condition, or often, leaves its names unknown.
                once = isinstance(node, ast.If) and _is_main(node.test) and name == "body"
                self.read(part, known, sure=sure and once)
            elif isinstance(part, list):
                for one in part:
                    if isinstance(one, ast.ExceptHandler | ast.match_case):
                        self.read(one.body, known, sure=False)
                    elif isinstance(one, ast.expr):
                        self._calls(one, known)

    def _assignment(
        self, node: ast.Assign | ast.AnnAssign | ast.AugAssign, known: dict[str, Any], sure: bool
    ) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is None:
            return
        self._calls(node.value, known)
        value = Unresolved(source_of(node.value))
        if sure and not isinstance(node, ast.AugAssign):
            value = value_of(node.value, _lookup(known))
        for target in targets:
            if isinstance(target, ast.Name):
                known[target.id] = value
                self.returned.pop(target.id, None)
                if isinstance(node.value, ast.Call):
                    self.returned[target.id] = dotted_name(node.value.func).rpartition(".")[2]
            else:
                written = dotted_name(target)
                if method := self.returned.get(written.partition(".")[0]):
                    self.found.assigned.append((method, written))
                for name in _names(target):
                    known[name] = Unresolved(name)

    def _calls(self, expression: ast.expr, known: dict[str, Any]) -> None:
        made = [node for node in ast.walk(expression) if isinstance(node, ast.Call)]
        for node in sorted(made, key=lambda one: (one.lineno, one.col_offset)):
            if len(self.found.calls) >= _MOST_CALLS:
                raise ValueError(f"it makes more than {_MOST_CALLS:,} calls")
            call = _call(node, known)
            self.found.calls.append(call)
            changed, _, method = call.name.rpartition(".")
            if method in _CHANGING and changed in known:
                known[changed] = Unresolved(changed)


def _call(node: ast.Call, known: dict[str, Any]) -> Call:
    lookup = _lookup(known)
    named: dict[str, Any] = {}
    for one in node.keywords:
        value = value_of(one.value, lookup)
        if one.arg is not None:
            named[one.arg] = value
        elif isinstance(value, dict):
            named.update(value)
        else:
            named[f"**{source_of(one.value)}"] = Unresolved(source_of(one.value))
    positional = tuple(value_of(argument, lookup) for argument in node.args)
    return Call(dotted_name(node.func), positional, named)


def _lookup(known: Mapping[str, Any]) -> Any:
    return lambda name: known.get(name, Unresolved(name))


def _names(target: ast.expr) -> Iterator[str]:
    yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _is_main(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"
