"""What an engine is asked for, in token ids, and the tokens that it gives."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

_NO_BIAS: Mapping[int, float] = MappingProxyType({})

#: Below this, sampling is greedy: dividing logits by less overflows.
GREEDY_BELOW = 1e-5


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. Penalties and bias apply before the temperature, as OpenAI and vLLM do.

    Attributes:
        temperature: below :data:`GREEDY_BELOW` takes the likeliest token.
        top_p: choose among the likeliest tokens that together have this probability; the likeliest always
            stays.
        top_k: choose among this many likeliest tokens; 0 is all.
        min_p: drop tokens with less than this share of the likeliest token's probability.
        presence_penalty: subtracted once from the logit of each token of the answer so far.
        frequency_penalty: subtracted from it as many times as the token was made.
        repetition_penalty: divides (positive) or multiplies (negative) logits of tokens of prompt and answer.
        logit_bias: added to the logits of these ids.
        seed: makes a sampled answer repeatable; ``None`` draws one.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: _NO_BIAS)
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature < GREEDY_BELOW


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the text of an answer must match.

    Attributes:
        kind: ``json_schema`` (the text is a JSON Schema) or ``lark`` (a grammar in llguidance's dialect of
            Lark, which vLLM's ``guidance`` backend reads, too).
        text: the schema or the grammar. The API has validated it.
    """

    kind: Literal["json_schema", "lark"]
    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """What an engine is asked for.

    Attributes:
        prompt: token ids, at least one.
        max_tokens: the most tokens to make, at least one.
        stop_ids: ids that end the answer; the one that does is not part of it.
        sampling: how to choose tokens.
        logprobs: ``None`` for none; else each token has its log-probability and those of this many likeliest
            tokens. They are of the model's own distribution, before penalties, bias and temperature.
        constraint: what the answer's text must match; stop ids are possible only where it is complete.
        request_id: for logs.
        whole: nobody reads it before its end, so an engine may hand its tokens out together.
    """

    prompt: list[int]
    max_tokens: int
    stop_ids: frozenset[int]
    sampling: Sampling = field(default_factory=Sampling)
    logprobs: int | None = None
    constraint: Constraint | None = None
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer.

    Attributes:
        id: its id.
        logprob: its log-probability, where asked for.
        top: ids and log-probabilities of the likeliest tokens at its place, likeliest first.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
