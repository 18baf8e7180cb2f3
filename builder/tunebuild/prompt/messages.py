"""What a conversation is, for training rows and for requests alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: One turn: ``role`` and ``content``, and whatever else the template reads (``tool_calls``, ``name``).
Message = Mapping[str, Any]
#: Turns in order. A training row ends with an assistant turn, a request does not. Tools that the model
#: may call stand before all turns, in one of the role :data:`TOOLS`; the template gets them as ``tools``.
Conversation = Sequence[Message]
#: Role of the turn that lists tools. No request can name it.
TOOLS = "tools"


def with_tools(messages: Conversation, tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """A conversation whose template is given these tools; unchanged if there are none."""
    return [{"role": TOOLS, "content": "", "tools": list(tools)}, *messages] if tools else list(messages)


def split_tools(messages: Conversation) -> tuple[list[Mapping[str, Any]], list[Message]]:
    """The tools of a conversation, and its turns without them."""
    if not messages or messages[0].get("role") != TOOLS:
        return [], list(messages)
    return list(messages[0].get("tools") or ()), list(messages[1:])


def with_system(messages: Conversation, system: str | None) -> list[Message]:
    """Put the spec's system text first unless the conversation brings its own.

    Training and serving both call this and nothing else does, so a request without a system turn gets
    the one that was trained on.
    """
    first = 1 if messages and messages[0]["role"] == TOOLS else 0
    if system is None or (len(messages) > first and messages[first]["role"] == "system"):
        return list(messages)
    return [*messages[:first], {"role": "system", "content": system}, *messages[first:]]
