"""How a template prints tool calls, found by rendering calls whose parts are known.

Nothing here knows a model by its name. A call is printed as literal text around its *slots*: the function's
name, its arguments as JSON, and with some templates the call's id. Two renderings, of one call and of two,
give every literal; a third one with a text before the call gives what stands between those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunebuild.prompt.messages import Conversation, Message, with_tools
from tunebuild.prompt.template import PromptRefused, PromptTemplate

Slot = Literal["name", "arguments", "id"]

# Ids of nine letters and digits are what the strictest templates take.
_IDS = ("qxzid0001", "qxzid0002")
_NAMES = ("qxz_first", "qxz_second")
_ARGUMENTS: tuple[Mapping[str, Any], ...] = ({"qxz_a": "qxz_x", "qxz_n": 17}, {"qxz_b": ["qxz_y", None]})
_CONTENT, _DESCRIPTION = "qxz_content", "qxz_description"
# A beginning that any JSON could have says nothing about a call inside of a text.
_JSON_ONLY = re.compile(r'[\s\[{]*(?:"\w+"\s*:\s*"?)?')


class CallsUnknown(Exception):
    """The template's tool calls cannot be parsed; the text says why, to follow the template's name."""


@dataclass(frozen=True, slots=True)
class CallFormat:
    """What a template writes of tool calls, from the end of the prompt to the end of the turn.

    Attributes:
        opening: before the first call where nothing was said before it, from the end of the prompt.
        lead: the end of that which stands there whatever was said, without white space at its beginning.
        gap: white space between what was said and ``lead``.
        slots: of a call, in order.
        inside: literals between a call's slots.
        again: between two calls; ``None`` where a turn has one call at most.
        end: behind the last call, up to the end of the turn.
    """

    opening: str
    lead: str
    gap: str
    slots: tuple[Slot, ...]
    inside: tuple[str, ...]
    again: str | None
    end: str

    @property
    def bare(self) -> bool:
        """Whether a call begins as any JSON could, so that only a whole answer can be one."""
        return bool(_JSON_ONLY.fullmatch(self.lead))


def find_call_format(template: PromptTemplate, turn_end: str) -> CallFormat:
    """The format of a template's tool calls.

    Args:
        template: the template.
        turn_end: spelling of the token that ends an answer.

    Raises:
        CallsUnknown: it prints no tools or no calls, or in a form that is not literals and JSON.
    """
    _check_tools_are_printed(template)
    try:
        one = _answer(template, "", _calls(1), turn_end)
    except PromptRefused as refused:
        raise CallsUnknown(f"takes no tool calls: {refused.diagnostics[0].message}") from None
    slots, opening, inside, end = _parts(one, 0)
    try:
        again = _between(_answer(template, "", _calls(2), turn_end), slots)
    except (PromptRefused, CallsUnknown):
        again = None
    lead, gap = _lead(template, opening, turn_end)
    if not lead.strip():
        raise CallsUnknown("prints a call as nothing but a name, which could be any text")
    return CallFormat(opening, lead, gap, slots, inside, again, end)


def _check_tools_are_printed(template: PromptTemplate) -> None:
    function = {"name": _NAMES[0], "description": _DESCRIPTION, "parameters": {"type": "object"}}
    user: Message = {"role": "user", "content": "a"}
    try:
        text = template.render(
            with_tools([user], [{"type": "function", "function": function}]), add_generation_prompt=True
        )
    except PromptRefused as refused:
        raise CallsUnknown(f"takes no tools: {refused.diagnostics[0].message}") from None
    if _NAMES[0] not in text or _DESCRIPTION not in text:
        raise CallsUnknown("prints no tools, so the model would not know of them")


def _calls(count: int) -> list[Message]:
    return [
        {"id": i, "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, name, arguments in list(zip(_IDS, _NAMES, _ARGUMENTS, strict=True))[:count]
    ]


def _answer(template: PromptTemplate, content: str, calls: Sequence[Message], turn_end: str) -> str:
    """What is printed of an answer, behind the prompt and before the end of its turn."""
    function = {"name": "qxz_tool", "description": _DESCRIPTION, "parameters": {"type": "object"}}
    tool = {"type": "function", "function": function}
    user: Message = {"role": "user", "content": "a"}
    asked: Conversation = with_tools([user], [tool])
    said: Message = {"role": "assistant", "content": content, "tool_calls": list(calls)}
    prompt = template.render(asked, add_generation_prompt=True)
    whole = template.render([*asked, said], add_generation_prompt=False)
    if not whole.startswith(prompt):
        raise CallsUnknown("prints another prompt before a call than before an answer")
    return whole[len(prompt) :].partition(turn_end)[0]


def _places(text: str, number: int) -> dict[Slot, tuple[int, int]]:
    """Where each slot of a call stands."""
    name, arguments, call_id = _NAMES[number], _ARGUMENTS[number], _IDS[number]
    if (at := text.find(name)) < 0:
        raise CallsUnknown("prints no tool calls in an answer without text")
    places: dict[Slot, tuple[int, int]] = {"name": (at, at + len(name))}
    key = text.find(next(iter(arguments)))
    start = text.rfind("{", 0, key) if key >= 0 else -1
    try:
        found, stop = json.JSONDecoder().raw_decode(text, start) if start >= 0 else (None, 0)
    except ValueError:
        found, stop = None, 0
    if found != arguments:
        raise CallsUnknown("prints a call's arguments in another form than JSON")
    places["arguments"] = (start, stop)
    if (at := text.find(call_id)) >= 0:
        places["id"] = (at, at + len(call_id))
    if any(text.count(part) > 1 for part in (name, call_id)):
        raise CallsUnknown("prints parts of a call more than once")
    return places


def _parts(text: str, number: int) -> tuple[tuple[Slot, ...], str, tuple[str, ...], str]:
    """Slots in order, and the literals before, between and behind them."""
    ordered = sorted(_places(text, number).items(), key=lambda item: item[1])
    ends = [0, *(stop for _, (_, stop) in ordered)]
    literals = [text[end:start] for end, (_, (start, _)) in zip(ends, ordered, strict=False)]
    if any(not literal.strip() for literal in literals[1:]):
        raise CallsUnknown("prints nothing between the parts of a call")
    return tuple(slot for slot, _ in ordered), literals[0], tuple(literals[1:]), text[ends[-1] :]


def _between(text: str, slots: Sequence[Slot]) -> str:
    first, second = _places(text, 0), _places(text, 1)
    stop, start = max(stop for _, stop in first.values()), min(start for start, _ in second.values())
    if tuple(sorted(second, key=lambda slot: second[slot])) != tuple(slots) or stop >= start:
        raise CallsUnknown("prints several calls in another order than one")
    return text[stop:start]


def _lead(template: PromptTemplate, opening: str, turn_end: str) -> tuple[str, str]:
    """``lead`` and ``gap``: of what stands before a call, the part that is there behind a text, too."""
    try:
        text = _answer(template, _CONTENT, _calls(1), turn_end)
        _, found, behind = text.partition(_CONTENT)
        before_name = _parts(behind, 0)[1] if found else opening
    except (PromptRefused, CallsUnknown):
        return opening.lstrip(), ""  # the template prints a text or calls, not both
    if not found:
        return opening.lstrip(), ""
    shared = 0
    while shared < min(len(opening), len(before_name)) and opening[-1 - shared] == before_name[-1 - shared]:
        shared += 1
    lead = before_name[len(before_name) - shared :].lstrip()
    return lead, before_name[: len(before_name) - len(lead)]
