"""How answers look in JSON: chat and plain completions, whole and in pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunebuild.serve.engines.request import Token

#: A token's text.
Spell = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Shape:
    """How one kind of answer looks.

    Attributes:
        prefix: of ids.
        whole: name of a whole answer.
        piece: name of a piece of a streamed one.
        is_chat: whether it is a message, not bare text.
    """

    prefix: str
    whole: str
    piece: str
    is_chat: bool

    def choice(
        self, index: int, said: Mapping[str, Any], finish: str | None, logprobs: Any
    ) -> dict[str, Any]:
        """A whole answer; ``said`` is its ``content``, and what else a message has."""
        message = {"role": "assistant", **said, "refusal": None}
        text = said["content"]
        content: dict[str, Any] = {"message": message} if self.is_chat else {"text": text}
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}

    def delta(
        self,
        index: int,
        text: str | None,
        finish: str | None,
        logprobs: Any = None,
        *,
        first: bool = False,
    ) -> dict[str, Any]:
        """A piece of an answer."""
        if not self.is_chat:
            return {"index": index, "text": text or "", "logprobs": logprobs, "finish_reason": finish}
        delta: dict[str, Any] = {"role": "assistant", "content": ""} if first else {}
        if text is not None:
            delta["content"] = text
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def part(self, index: int, delta: Mapping[str, Any], logprobs: Any = None) -> dict[str, Any]:
        """A piece of a message that has more than text."""
        return {"index": index, "delta": dict(delta), "logprobs": logprobs, "finish_reason": None}

    def logprobs(self, tokens: Sequence[Token], spell: Spell, offset: int = 0) -> dict[str, Any]:
        """Log-probabilities of an answer's tokens, or of a piece's.

        Args:
            tokens: with their log-probabilities.
            spell: gives a token's text.
            offset: characters of the answer before the first of them.
        """
        if self.is_chat:
            return {"content": [_chat_token(token, spell) for token in tokens], "refusal": None}
        texts = [spell(token.id) for token in tokens]
        offsets = [offset + sum(map(len, texts[:n])) for n in range(len(texts))]
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{spell(i): value for i, value in token.top} for token in tokens],
            "text_offset": offsets,
        }


CHAT = Shape("chatcmpl", "chat.completion", "chat.completion.chunk", True)
TEXT = Shape("cmpl", "text_completion", "text_completion", False)


def _chat_token(token: Token, spell: Spell) -> dict[str, Any]:
    top = [_spelled(spell(i), value) for i, value in token.top]
    return {**_spelled(spell(token.id), token.logprob), "top_logprobs": top}


def _spelled(text: str, logprob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}
