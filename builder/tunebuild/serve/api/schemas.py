"""Requests as OpenAI's clients send them. What cannot be honored is refused, never ignored.

Fields that clients send with values that change nothing (``store: false``, ``suffix: ""``) are accepted with
just those values.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    model_validator,
)

from tunebuild.prompt import Message
from tunebuild.prompt.tools import TOOL_NAME
from tunebuild.prompt.turns import TurnRefused, plain_turn
from tunebuild.serve.engines.base import Constraint, Sampling


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half a surrogate pair, which is no character") from None
    return text


#: Text that a tokenizer can read. JSON can spell what is none.
Text = Annotated[str, AfterValidator(_whole)]
#: Values of the template's variables, by name.
Variables = Annotated[
    dict[Annotated[str, Field(max_length=64)], StrictBool | StrictInt | StrictFloat | Text],
    Field(max_length=16),
]
#: A text that ends an answer; looking for it costs its length at every token.
StopText = Annotated[str, Field(max_length=256)]
Prompt = Annotated[Text, Field(min_length=1)]
Ids = Annotated[list[Annotated[int, Field(strict=True)]], Field(min_length=1)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TextPart(_Closed):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text


class CalledFunction(_Closed):
    """What a call names, and its arguments as JSON."""

    name: Annotated[Text, Field(min_length=1, max_length=256)]
    arguments: Text = ""
    parsed_arguments: Any = None  # what the official client adds when it parses an answer


class ToolCall(_Closed):
    """A call of an earlier answer."""

    id: Annotated[Text, Field(max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class ChatMessage(_Closed):
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


def check_depth(value: Any) -> Any:
    """Refuse JSON that is nested deeper than anybody means it.

    Raises:
        ValueError: it is, or its text holds what is no character.
    """
    level, depth = [value], 0
    while level:
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [*one.keys(), *one.values()]
            elif isinstance(one, list | tuple):
                inner += one
            elif isinstance(one, str):
                _whole(one)
        level, depth = inner, depth + 1
    return value


_DEEPEST = 64
#: A JSON Schema, or another object that is handed on as it is.
Object = Annotated[dict[str, Any], AfterValidator(check_depth)]


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


class Tool(_Closed):
    """A tool."""

    type: Literal["function"]
    function: ToolFunction

    def raw(self) -> dict[str, Any]:
        """As it was sent."""
        return {"type": "function", "function": {**dict(self.function), **(self.function.model_extra or {})}}


class ChosenFunction(_Closed):
    """A tool's name."""

    name: str


class NamedChoice(_Closed):
    """The one tool that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class StreamOptions(_Closed):
    """Options of a streamed answer."""

    include_usage: StrictBool = False
    include_obfuscation: StrictBool | None = None


class TextFormat(_Closed):
    """Any text."""

    type: Literal["text"]


class JsonObject(_Closed):
    """Some JSON object."""

    type: Literal["json_object"]


class JsonSchema(_Closed):
    """A named JSON Schema."""

    name: str = Field("", max_length=256)
    description: str | None = None
    schema_: Object = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(_Closed):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class Common(_Closed):
    """What both kinds of requests share. A field that is null is as if it were left out."""

    model: str = Field(max_length=512)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=1_000_000)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=1024)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int | None = Field(None, ge=1, le=128)
    max_tokens: int | None = Field(None, ge=1)
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=512)

    def sampling(self, temperature: float, top_p: float, number: int) -> Sampling:
        """How to choose tokens.

        Args:
            temperature, top_p: the bundle's defaults.
            number: of the answer, where several are asked for: with a seed, each has its own.
        """
        return Sampling(
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=top_p if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            min_p=self.min_p or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            logit_bias=self.logit_bias or {},
            seed=None if self.seed is None else self.seed + number,
        )

    def stops(self) -> list[str]:
        """Texts that end the answer."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in stop if text]

    def wanted_logprobs(self) -> int | None:
        """How many likeliest tokens each token comes with; ``None`` for no log-probabilities at all."""
        raise NotImplementedError

    def constraint(self) -> Constraint | None:
        """What the text must match."""
        return None


class ChatRequest(Common):
    """``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: StrictBool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: TextFormat | JsonObject | JsonSchemaFormat | None = Field(None, discriminator="type")
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: StrictBool | None = None
    chat_template_kwargs: Variables | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = None

    def wanted_logprobs(self) -> int | None:
        """``top_logprobs``, where ``logprobs`` is true."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def constraint(self) -> Constraint | None:
        """``response_format``."""
        match self.response_format:
            case JsonObject():
                return Constraint("json_schema", '{"type": "object"}')
            case JsonSchemaFormat(json_schema=wanted):
                return Constraint("json_schema", json.dumps(wanted.schema_))
        return None


class CompletionRequest(Common):
    """``POST /v1/completions``: plain text, without the chat template."""

    prompt: Prompt | Ids | list[Prompt] | list[Ids] = Field(min_length=1, max_length=2**20)
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    suffix: Literal[""] | None = None

    def wanted_logprobs(self) -> int | None:
        """``logprobs``."""
        return self.logprobs

    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or token ids."""
        prompt: Any = self.prompt
        several = isinstance(prompt, list) and not isinstance(prompt[0], int)
        return list(prompt) if several else [prompt]


class RenderRequest(_Closed):
    """``POST /render``."""

    model: str | None = None
    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    tools: list[Tool] | None = Field(None, max_length=128)
    chat_template_kwargs: Variables | None = None


class TokenizeRequest(_Closed):
    """``POST /tokenize``."""

    model: str | None = None
    prompt: Text
