"""Answers as what a model reasons and what it says: the same for the endpoint, evaluation and verify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tunebuild.prompt.detokenizer import Detokenizer
from tunebuild.prompt.messages import Message
from tunebuild.prompt.reasoning import KEY, Reasoning, usual_block
from tunebuild.prompt.reasoning_stream import ReasoningStream
from tunebuild.prompt.tokenizer import PromptTokenizer


@dataclass(frozen=True)
class Answers:
    """Parts answers.

    Attributes:
        tokenizer: of the prompt contract.
        reasoning: how the template writes it, if it does.
        stop_ids: what ends an answer.
        closed: whether the prompt closes the block for reasoning.
    """

    tokenizer: PromptTokenizer
    reasoning: Reasoning | None
    stop_ids: frozenset[int]
    closed: bool

    def detokenizer(self, others: frozenset[int] = frozenset()) -> Detokenizer:
        """A fresh incremental decoder for one answer, to which the markers of reasoning are text.

        Args:
            others: special tokens that are text, too.
        """
        return Detokenizer(self.tokenizer, self._markers | others)

    def stream(self, prompt: Sequence[int]) -> ReasoningStream | None:
        """Parts the text of an answer to a prompt as it comes; ``None`` where there is no reasoning."""
        if self.reasoning is None:
            return None
        # As much as an opening marker has, if each of its characters is a token.
        end = list(prompt[-len(self.reasoning.opening) - 8 :])
        opened = self.reasoning.opened_by(self._text(end))
        return ReasoningStream(self.reasoning, opened=bool(opened))

    def before_plain(self, prompt: Sequence[int]) -> str:
        """What an answer without reasoning begins with: a block that is closed at once, say."""
        if self.reasoning is None:
            return ""
        tail = self._text(list(prompt[-len(self.reasoning.closing) - 8 :]))
        if self.reasoning.opened_by(tail):
            return self.reasoning.closes_at_once
        return "" if self.reasoning.closed_by(tail) else self.reasoning.plain

    def separate(self, prompt: Sequence[int], answer: Sequence[int]) -> tuple[str, str]:
        """Reasoning and text of an answer's tokens; what ended it is left out."""
        ids = [i for i in answer if i not in self.stop_ids]
        stream = self.stream(prompt)
        if stream is None:
            return "", self.tokenizer.decode(ids)
        pieces = [stream.push(self._text(ids)), stream.flush()]
        reasoning, text = ("".join(parts) for parts in zip(*pieces, strict=True))
        return reasoning, text

    def said(self, turn: Message) -> tuple[str, str]:
        """Reasoning and text of a trained answer, as the endpoint gives them once it is learned."""
        content = turn["content"]
        found = None if self.reasoning is None or turn.get(KEY) else self.reasoning.split(content)
        reasoning, text = found or (turn.get(KEY, ""), content)
        return ("" if self.closed else reasoning), text

    def spells_block(self, turn: Message) -> bool:
        """Whether an answer begins with a block of reasoning that is ordinary text to the template."""
        if turn["role"] != "assistant" or not usual_block(turn["content"]):
            return False
        return self.reasoning is None or self.reasoning.split(turn["content"]) is None

    @cached_property
    def _markers(self) -> frozenset[int]:
        if self.reasoning is None:
            return frozenset()
        parts = self.reasoning.opening, self.reasoning.closing, self.reasoning.plain
        return self.tokenizer.special_ids("".join(parts))

    def _text(self, ids: Sequence[int]) -> str:
        decoder = self.detokenizer()
        return "".join(map(decoder.push, ids)) + decoder.flush()
