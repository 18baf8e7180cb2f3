"""Golden vectors: conversations and the exact token ids they must become, wherever the image runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunebuild.prompt.messages import Conversation, Message, with_tools
from tunebuild.prompt.renderer import Renderer
from tunebuild.prompt.template import PromptRefused


@dataclass(frozen=True, slots=True)
class GoldenVector:
    """One conversation and its prompt ids; ``ids`` is ``None`` where the template refuses it."""

    name: str
    messages: list[Message]
    ids: list[int] | None


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first place where a vector does not reproduce.

    Attributes:
        vector: the vector's name.
        index: position of the first differing token; -1 if one side refuses the conversation.
        expected: spelling of the recorded token, or ``"nothing"``/``"a refusal"``.
        actual: spelling of the token found now, likewise.
    """

    vector: str
    index: int
    expected: str
    actual: str

    def __str__(self) -> str:
        where = f"token {self.index}" if self.index >= 0 else "the whole prompt"
        return f"golden vector '{self.vector}': {where} should be {self.expected} but is {self.actual}"


def probes(special_spelling: str) -> list[tuple[str, list[Message]]]:
    """Conversations that find the usual ways to go wrong, with names.

    Args:
        special_spelling: a control token's text; users type it and it must stay text.
    """
    user, assistant = "user", "assistant"
    return [
        ("one-turn", [_m(user, "How do I reset it?")]),
        ("system", [_m("system", "Answer briefly."), _m(user, "Why?")]),
        ("empty-system", [_m("system", ""), _m(user, "Why?")]),
        ("multi-turn", [_m(user, "Hi"), _m(assistant, "Hello."), _m(user, "And then?")]),
        ("unicode", [_m(user, "Größe? \u0645\u0631\u062d\u0628\u0627 \u4f60\u597d \U0001f9ed e\u0301")]),
        ("white-space", [_m(user, "  two leading\n\nand\ttrailing  ")]),
        ("literal-special-token", [_m(user, f"What is {special_spelling} for?")]),
    ]


def tool_probes() -> list[tuple[str, list[Message]]]:
    """Conversations with tools, for templates that print them."""
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"name": "weather", "description": "The weather \u2600 in a city.", "parameters": city}
    tools = [{"type": "function", "function": tool}]
    call = {"name": "weather", "arguments": {"city": "K\u00f6ln"}}
    asked = [_m("system", "Answer briefly."), _m("user", "Weather?")]
    called: Message = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call00001", "type": "function", "function": call}],
    }
    result: Message = {"role": "tool", "content": '{"sky": "clear"}', "tool_call_id": "call00001"}
    return [
        ("tools", with_tools(asked, tools)),
        ("tool-result", with_tools([*asked, called, result], tools)),
    ]


def make_golden(renderer: Renderer, extra: Iterable[tuple[str, list[Message]]] = ()) -> list[GoldenVector]:
    """Record the probes and ``extra`` conversations with this renderer."""
    spelling = renderer.tokenizer.token_text(renderer.turn_end_id)
    more = tool_probes() if renderer.call_format else []
    return [
        GoldenVector(name, messages, _ids(renderer, messages))
        for name, messages in [*probes(spelling), *more, *extra]
    ]


def check_golden(renderer: Renderer, vectors: Sequence[GoldenVector]) -> Mismatch | None:
    """The first vector that this renderer does not reproduce, or ``None``."""
    for vector in vectors:
        actual = _ids(renderer, vector.messages)
        if actual == vector.ids:
            continue
        if actual is None or vector.ids is None:
            words = {True: "a refusal", False: "a prompt"}
            return Mismatch(vector.name, -1, words[vector.ids is None], words[actual is None])
        at = next(
            (i for i, (a, b) in enumerate(zip(actual, vector.ids, strict=False)) if a != b),
            min(len(actual), len(vector.ids)),
        )
        return Mismatch(vector.name, at, _show(renderer, vector.ids, at), _show(renderer, actual, at))
    return None


def load_golden(path: Path) -> list[GoldenVector]:
    """Read ``golden.json``."""
    return [GoldenVector(v["name"], v["messages"], v["ids"]) for v in json.loads(path.read_text("utf-8"))]


def save_golden(path: Path, vectors: Sequence[GoldenVector]) -> None:
    """Write ``golden.json``, one vector a line so that a difference reads well."""
    lines = [
        json.dumps({"name": v.name, "messages": v.messages, "ids": v.ids}, ensure_ascii=False)
        for v in vectors
    ]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", "utf-8")


def _m(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _ids(renderer: Renderer, messages: Conversation) -> list[int] | None:
    try:
        return renderer.prompt_ids(messages)
    except PromptRefused:
        return None


def _show(renderer: Renderer, ids: list[int], at: int) -> str:
    return repr(renderer.tokenizer.token_text(ids[at])) if at < len(ids) else "nothing"
