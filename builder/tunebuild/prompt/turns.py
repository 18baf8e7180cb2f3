"""One turn as files and requests spell it, and as templates read it.

Training rows and requests come through :func:`plain_turn` alike, so that the same conversation gives the same
prompt on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from tunebuild.prompt.messages import Message

#: Roles that templates know. OpenAI's clients call the system role ``developer`` for newer models.
ROLES = frozenset(("system", "user", "assistant", "tool"))
_REASONING = ("reasoning_content", "reasoning", "thinking")
# The keys that requests have, too, in the order in which templates get them: some print a whole turn.
_ORDER = ("role", "content", _REASONING[0], "tool_calls", "tool_call_id", "name")


class TurnRefused(Exception):
    """A turn that cannot be used as it is; the text says why, to follow ``turn 3`` or the like."""


def plain_turn(turn: Mapping[str, Any]) -> Message:
    """A turn with a role out of :data:`ROLES`, its content as text and its calls in OpenAI's form, decoded.

    Keys that hold nothing are left out: tables fill what a turn does not have with ``None``, clients send
    empty lists, and a template must not see the difference. All other keys stay, since a template may print
    them, behind those that requests have.

    Args:
        turn: with a ``role`` that is known, ``content`` that is text or a list of text parts.

    Raises:
        TurnRefused: with the reason.
    """
    plain = {
        key: value
        for key, value in turn.items()
        if value is not None and (key == "content" or not isinstance(value, list | Mapping) or value)
    }
    if plain.get("role") == "developer":
        plain["role"] = "system"
    if "tool_calls" in plain:
        plain["tool_calls"] = _calls(plain["tool_calls"])
        plain.setdefault("content", "")
    plain["content"] = joined_text(plain.get("content"))
    if plain.get("role") == "assistant":
        _read_reasoning(plain)
    return {key: plain[key] for key in (*(k for k in _ORDER if k in plain), *plain)}


def unasked_keys(turn: Message) -> list[str]:
    """Keys of a plain turn that no request can bring."""
    return [key for key in turn if key not in _ORDER]


def _read_reasoning(turn: dict[str, Any]) -> None:
    """Put an answer's reasoning under one key, whichever of the usual ones it has."""
    found = {key: turn.pop(key) for key in _REASONING if key in turn}
    if odd := next((key for key, value in found.items() if not isinstance(value, str | list)), None):
        raise TurnRefused(f"has a '{odd}' that is no text")
    texts = {text for value in found.values() if (text := joined_text(value)).strip()}
    if len(texts) > 1:
        raise TurnRefused(f"has {' and '.join(map(repr, found))} that differ")
    for text in texts:
        turn[_REASONING[0]] = text


def joined_text(content: Any) -> str:
    """The text of a content, which may be a list of parts; their texts follow each other directly.

    Raises:
        TurnRefused: there is none, or a part is no text.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TurnRefused("has no text content")
    return "".join(_part(number, part) for number, part in enumerate(content, 1))


def _part(number: int, part: Any) -> str:
    if not isinstance(part, Mapping):
        raise TurnRefused(f"has a content whose part {number} is no mapping with 'type' and 'text'")
    kind = part.get("type")
    if kind != "text":
        what = f"of type {kind!r}" if isinstance(kind, str) else "without a type"
        raise TurnRefused(f"has a content part {what}; only text is read")
    if not isinstance(part.get("text"), str):
        raise TurnRefused(f"has a content whose part {number} has no text")
    # Parts say nothing else that a text can hold; caching hints and the like have no place in a prompt.
    more = sorted(
        str(key) for key, value in part.items() if key not in ("type", "text") and value is not None
    )
    if more:
        raise TurnRefused(f"has a content part with {', '.join(map(repr, more))}, which no prompt shows")
    return part["text"]


def _calls(calls: Any) -> list[Message]:
    if not isinstance(calls, list):
        raise TurnRefused("has 'tool_calls' that are no list")
    return [_call(number, call) for number, call in enumerate(calls, 1)]


def _call(number: int, call: Any) -> Message:
    if not isinstance(call, Mapping):
        raise TurnRefused(f"has a tool call ({number}) that is no mapping")
    kept = {key: value for key, value in call.items() if value is not None}
    kept.pop("index", None)  # of a streamed call: where it stands in the list
    kind = kept.pop("type", "function")
    if kind != "function":
        raise TurnRefused(f"has a tool call ({number}) of type {kind!r}; only functions can be called")
    # Some write the function alone, with the call's id in it. A request has it in this form always.
    head = {"id": kept.pop("id")} if "id" in kept else {}
    function = kept.pop("function", None)
    if function is None:
        function, kept = kept, {}
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise TurnRefused(f"has a tool call ({number}) without a function's name")
    name, arguments = function["name"], _arguments(function["name"], function.get("arguments"))
    more = {k: v for k, v in function.items() if k not in ("name", "arguments") and v is not None}
    return {**head, "type": kind, "function": {"name": name, "arguments": arguments, **more}, **kept}


def _arguments(name: str, arguments: Any) -> Mapping[str, Any]:
    """Arguments as a mapping. OpenAI's clients send them as JSON in a string, which is decoded just once."""
    if arguments is None or arguments == "":
        return {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise TurnRefused(f"calls {name!r} with arguments that are not JSON: {error}") from None
        if isinstance(arguments, str):
            raise TurnRefused(f"calls {name!r} with arguments that are JSON twice over: decode them once")
    if not isinstance(arguments, Mapping):
        raise TurnRefused(f"calls {name!r} with arguments that are no object of names and values")
    return arguments


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
