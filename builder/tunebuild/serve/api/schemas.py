"""Requests as OpenAI's clients send them. What cannot be honoured is refused, never ignored.

Fields that clients send with values that change nothing (``n: 1``, ``logprobs: false``) are accepted with
just those values.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from tunebuild.prompt import Message
from tunebuild.serve.engines.base import Sampling


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Closed):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(_Closed):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def plain(self) -> Message:
        """Role and text. OpenAI's clients call the system role ``developer`` for newer models."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(_Closed):
    """Options of a streamed answer."""

    include_usage: StrictBool = False
    include_obfuscation: StrictBool | None = None


class TextFormat(_Closed):
    """The one response format there is."""

    type: Literal["text"]


class Common(_Closed):
    """What both kinds of requests share."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    max_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    # Accepted where they change nothing.
    n: Literal[1] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: dict[str, Any] | None = Field(None, max_length=0)

    def sampling(self, temperature: float, top_p: float) -> Sampling:
        """How to choose tokens, with the bundle's defaults."""
        return Sampling(
            temperature if self.temperature is None else self.temperature,
            top_p if self.top_p is None else self.top_p,
            seed=self.seed,
        )

    def stops(self) -> list[str]:
        """Texts that end the answer."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in stop if text]


class ChatRequest(Common):
    """``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    response_format: TextFormat | None = None
    tools: list[Any] | None = Field(None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: StrictBool | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = None


class CompletionRequest(Common):
    """``POST /v1/completions``: plain text, without the chat template."""

    prompt: str = Field(min_length=1)
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: Literal[0] | None = None
    suffix: Literal[""] | None = None
