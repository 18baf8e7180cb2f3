"""Turns of a conversation, and tools, as OpenAI's clients send them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from tunebuild.prompt import Message
from tunebuild.prompt.tools import TOOL_NAME
from tunebuild.prompt.turns import TurnRefused, plain_turn
from tunebuild.serve.api.values import Closed, Object, Text, check_depth


class TextPart(Closed):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text


class CalledFunction(Closed):
    """What a call names, and its arguments as JSON."""

    name: Annotated[Text, Field(min_length=1, max_length=256)]
    arguments: Text = ""
    parsed_arguments: Any = None  # what the official client adds when it parses an answer


class ToolCall(Closed):
    """A call of an earlier answer."""

    id: Annotated[Text, Field(max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class ChatMessage(Closed):
    """One turn of a conversation. Clients send back an answer with more fields than it has content."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    name: Text | None = None
    tool_calls: list[ToolCall] | None = Field(None, max_length=128)
    tool_call_id: Annotated[Text, Field(max_length=256)] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = Field(None, max_length=0)
    parsed: Any = None  # what the official client adds when it parses an answer
    reasoning_content: Text | None = None
    reasoning: Text | None = None
    thinking: Text | None = None

    @model_validator(mode="after")
    def _is_a_turn(self) -> ChatMessage:
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only turns of the assistant have tool calls")
        if (self.reasoning_content or self.reasoning or self.thinking) and self.role != "assistant":
            raise ValueError("only turns of the assistant have reasoning")
        if self.tool_call_id is not None and self.role != "tool":
            raise ValueError("only turns of a tool answer a call")
        try:
            turn = self.plain()
        except TurnRefused as refused:
            raise ValueError(f"the turn {refused}") from None
        check_depth(turn)
        return self

    def plain(self) -> Message:
        """The turn as training rows have it.

        Raises:
            TurnRefused: its calls are not JSON.
        """
        parts = self.content
        turn: dict[str, Any] = {"role": self.role, "tool_call_id": self.tool_call_id, "name": self.name}
        if parts is not None:
            turn["content"] = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        if self.tool_calls:
            turn["tool_calls"] = [
                call.model_dump(exclude={"index": True, "function": {"parsed_arguments"}})
                for call in self.tool_calls
            ]
        if self.role == "assistant":
            turn |= {
                "reasoning_content": self.reasoning_content,
                "reasoning": self.reasoning,
                "thinking": self.thinking,
            }
        return plain_turn(turn)


class ToolFunction(BaseModel):
    """A function that the model may call. What else it holds is shown to the model, too."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    name: str = Field(pattern=rf"^(?:{TOOL_NAME.pattern})$")
    description: Text | None = None
    parameters: Object | None = None
    strict: StrictBool | None = None

    @model_validator(mode="after")
    def _is_bounded(self) -> ToolFunction:
        check_depth(self.model_extra)
        return self


class Tool(Closed):
    """A tool."""

    type: Literal["function"]
    function: ToolFunction

    def raw(self) -> dict[str, Any]:
        """As it was sent."""
        return {"type": "function", "function": {**dict(self.function), **(self.function.model_extra or {})}}
