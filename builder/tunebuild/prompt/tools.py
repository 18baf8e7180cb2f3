"""A tool as rows and requests describe it, and as templates are given it.

Rows and requests come through :func:`plain_tools` alike, so that the same tools give the same prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

#: What clients may call a tool.
TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ORDER = ("name", "description", "parameters")


class ToolRefused(Exception):
    """A list of tools that cannot be used as it is; the text says why, to follow ``column 'tools'``."""


def plain_tools(tools: Any) -> list[Mapping[str, Any]]:
    """Tools as ``{"type": "function", "function": {"name", "description", "parameters"}}``, in that order.

    A bare function is put into that form; what else it holds follows. ``strict`` is left out: it is about how
    an answer is decoded, and no prompt shows it. Names are not checked here, since rows may hold any.

    Args:
        tools: a list of tools, JSON of one, or nothing.

    Raises:
        ToolRefused: with the reason.
    """
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            raise ToolRefused("is no list of tools, and no JSON of one") from None
    if not tools or (isinstance(tools, str) and not tools.strip()):
        return []
    if not isinstance(tools, list):
        raise ToolRefused("is no list of tools")
    return [_plain(number, tool) for number, tool in enumerate(tools, 1)]


def _plain(number: int, tool: Any) -> Mapping[str, Any]:
    if isinstance(tool, str):  # a list of JSON texts, as tables hold it
        try:
            tool = json.loads(tool)
        except (ValueError, RecursionError):
            tool = None
    if not isinstance(tool, Mapping):
        raise ToolRefused(f"has a tool ({number}) that is no mapping")
    function = tool.get("function", tool)
    kind = tool.get("type") if "function" in tool else "function"
    if kind not in (None, "function"):
        raise ToolRefused(f"has a tool ({number}) of type {kind!r}; only functions can be called")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ToolRefused(f"has a tool ({number}) without a function's name")
    known = {key: function[key] for key in _ORDER if function.get(key) is not None}
    more = {k: v for k, v in function.items() if k not in (*_ORDER, "strict", "type") and v is not None}
    return {"type": "function", "function": {**known, **more}}
