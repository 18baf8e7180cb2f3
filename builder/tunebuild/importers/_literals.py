"""Values of Python expressions, as far as they can be told without running anything."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from tunebuild.importers.ledger import Unresolved

_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
}
_LARGEST = 10**12
#: Characters or items; a text that is doubled line by line would fill the memory.
_LONGEST = 100_000
_LONGEST_SHOWN = 80

#: The value of a name where an expression stands.
Lookup = Callable[[str], Any]


def value_of(node: ast.expr, lookup: Lookup) -> Any:
    """A plain value, or what is written if only running it would tell.

    Args:
        node: the expression.
        lookup: the value of a name; an :class:`Unresolved` for what is not known.
    """
    try:
        return _value(node, lookup)
    except _UnknownError:
        return Unresolved(source_of(node))


def source_of(node: ast.AST) -> str:
    """An expression as it is written, on one line and not too long."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def dotted_name(node: ast.expr) -> str:
    """``a.b.c`` of names and attributes; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted_name(node.value)
        return f"{before}.{node.attr}" if before else node.attr
    return ""


class _UnknownError(Exception):
    """Only running it would tell."""


def _value(node: ast.expr, lookup: Lookup) -> Any:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str | int | float | bool | None):
            return node.value
    elif isinstance(node, ast.Name):
        return _known(lookup(node.id))
    elif isinstance(node, ast.Attribute):
        name = dotted_name(node)
        if name.startswith("torch."):
            return name.removeprefix("torch.")
    elif isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_value(item, lookup) for item in node.elts]
    elif isinstance(node, ast.Dict):
        return _mapping(node, lookup)
    elif isinstance(node, ast.UnaryOp):
        return _signed(node.op, _value(node.operand, lookup))
    elif isinstance(node, ast.BinOp):
        return _computed(node.op, _value(node.left, lookup), _value(node.right, lookup))
    raise _UnknownError


def _known(value: Any) -> Any:
    if isinstance(value, Unresolved):
        raise _UnknownError
    return value


def _mapping(node: ast.Dict, lookup: Lookup) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            inner = _value(value, lookup)
            if not isinstance(inner, dict):
                raise _UnknownError
            found.update(inner)
        else:
            found[str(_value(key, lookup))] = _value(value, lookup)
    return found


def _signed(sign: ast.unaryop, value: Any) -> Any:
    if isinstance(sign, ast.Not):
        return not value
    if isinstance(sign, ast.USub) and isinstance(value, int | float):
        return -value
    raise _UnknownError


def _computed(sign: ast.operator, left: Any, right: Any) -> Any:
    compute = _ARITHMETIC.get(type(sign))
    numbers = all(isinstance(one, int | float) and abs(one) <= _LARGEST for one in (left, right))
    texts = isinstance(left, str) and isinstance(right, str) and isinstance(sign, ast.Add)
    lists = isinstance(left, list) and isinstance(right, list) and isinstance(sign, ast.Add)
    too_long = (texts or lists) and len(left) + len(right) > _LONGEST
    if compute is None or too_long or not (numbers or texts or lists):
        raise _UnknownError
    try:
        return compute(left, right)
    except (ArithmeticError, ValueError):
        raise _UnknownError from None
