"""What a conversation is, for training rows and for requests alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: One turn: ``role`` and ``content``, and whatever else the template reads (``tool_calls``, ``name``).
Message = Mapping[str, Any]
#: Turns in order. A training row ends with an assistant turn, a request does not.
Conversation = Sequence[Message]


def with_system(messages: Conversation, system: str | None) -> list[Message]:
    """Put the spec's system text first unless the conversation brings its own.

    Training and serving both call this and nothing else does, so a request without a system turn gets
    the one that was trained on.
    """
    if system is None or (messages and messages[0]["role"] == "system"):
        return list(messages)
    return [{"role": "system", "content": system}, *messages]
