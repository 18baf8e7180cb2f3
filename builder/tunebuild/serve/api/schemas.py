"""Requests as OpenAI's clients send them. What cannot be honored is refused, never ignored.

Fields that clients send with values that change nothing (``store: false``, ``suffix: ""``) are accepted with
just those values.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt

from tunebuild.serve.api.turns import ChatMessage, Tool
from tunebuild.serve.api.values import Closed, Object, Text
from tunebuild.serve.engines.request import Constraint, Sampling

#: Values of the template's variables, by name.
Variables = Annotated[
    dict[Annotated[str, Field(max_length=64)], StrictBool | StrictInt | StrictFloat | Text],
    Field(max_length=16),
]
#: A text that ends an answer; looking for it costs its length at every token.
StopText = Annotated[str, Field(max_length=256)]
Prompt = Annotated[Text, Field(min_length=1)]
Ids = Annotated[list[Annotated[int, Field(strict=True)]], Field(min_length=1)]


class ChosenFunction(Closed):
    """A tool's name."""

    name: str


class NamedChoice(Closed):
    """The one tool that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class StreamOptions(Closed):
    """Options of a streamed answer."""

    include_usage: StrictBool = False
    include_obfuscation: StrictBool | None = None


class TextFormat(Closed):
    """Any text."""

    type: Literal["text"]


class JsonObject(Closed):
    """Some JSON object."""

    type: Literal["json_object"]


class JsonSchema(Closed):
    """A named JSON Schema."""

    name: str = Field("", max_length=256)
    description: str | None = None
    schema_: Object = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Closed):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class Common(Closed):
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

    @abstractmethod
    def wanted_logprobs(self) -> int | None:
        """How many likeliest tokens each token comes with; ``None`` for no log-probabilities at all."""

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


class RenderRequest(Closed):
    """``POST /render``."""

    model: str | None = None
    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    tools: list[Tool] | None = Field(None, max_length=128)
    chat_template_kwargs: Variables | None = None


class TokenizeRequest(Closed):
    """``POST /tokenize``."""

    model: str | None = None
    prompt: Text
