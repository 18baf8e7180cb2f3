"""A grammar of the answers that are tool calls, in llguidance's dialect of Lark."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunebuild.prompt.calls import CallFormat, Slot
from tunebuild.prompt.tokenizer import PromptTokenizer

_ID = "/[A-Za-z0-9]{9}/"


def call_grammar(
    call_format: CallFormat,
    tokenizer: PromptTokenizer,
    tools: Sequence[Mapping[str, Any]],
    *,
    parallel: bool,
    strict: frozenset[str] = frozenset(),
    otherwise: str | None = None,
) -> str:
    """Lark text that is matched by calls of these tools, as training printed them, and by nothing else.

    Args:
        call_format: of the template.
        tokenizer: the template's; tokens of the format must be just those tokens.
        tools: the ones that may be called, as :func:`tunebuild.prompt.tools.plain_tools` gives them.
        parallel: whether several may be called at once.
        strict: names of tools whose parameters must be followed to the letter, or else be refused; of others,
            what llguidance does not know in a schema is left out.
        otherwise: a JSON Schema that an answer without calls must fit; ``None`` for calls alone.
    """

    def literal(text: str) -> list[str]:
        parts = tokenizer.added_tokens(text)
        return [f"<[{p}]>" if isinstance(p, int) else json.dumps(p, ensure_ascii=False) for p in parts]

    def rule(tool: Mapping[str, Any], number: int) -> str:
        values: dict[Slot, str] = {
            "name": json.dumps(tool["function"]["name"]),
            "arguments": f"arguments_{number}",
            "id": _ID,
        }
        parts: list[str] = []
        for slot, behind in zip(call_format.slots, (*call_format.inside, ""), strict=True):
            parts += [values[slot], *literal(behind)]
        return f"call_{number}: {' '.join(parts)}"

    def rules() -> Iterator[str]:
        yield "%llguidance {}"
        yield "start: calls" if otherwise is None else "start: calls | otherwise"
        if otherwise is not None:
            yield f"otherwise: %json {otherwise}"
        again = call_format.again
        more = f" ({' '.join((*literal(again), 'call'))})*" if parallel and again else ""
        yield " ".join(("calls:", *literal(call_format.opening), f"call{more}", *literal(call_format.end)))
        yield "call: " + " | ".join(f"call_{number}" for number in range(len(tools)))
        for number, tool in enumerate(tools):
            yield rule(tool, number)
            yield f"arguments_{number}: %json {_schema(tool['function'], strict)}"

    return "\n".join(rules()) + "\n"


def _schema(function: Mapping[str, Any], strict: frozenset[str]) -> str:
    schema = dict(function.get("parameters") or {})
    # A call's arguments are an object, whatever the schema leaves out.
    schema.setdefault("type", "object")
    # Templates print a blank behind separators at most; without a bound a model may write blanks without end.
    schema["x-guidance"] = {"lenient": function["name"] not in strict, "whitespace_pattern": "[ ]?"}
    return json.dumps(schema)
