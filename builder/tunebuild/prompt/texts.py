"""The texts of a conversation: the prompt before an answer, and what is trained on behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tunebuild.errors import fail
from tunebuild.prompt.messages import Conversation, Message, with_system
from tunebuild.prompt.reasoning import KEY, Reasoning
from tunebuild.prompt.template import PromptRefused, PromptTemplate

#: What becomes of answers without reasoning where the prompt opens a block for it.
PlainAnswers = Literal["close", "prefill", "refuse"]
_PROBE: Message = {"role": "user", "content": "a"}


@dataclass(frozen=True)
class Texts:
    """Renders prompts and training texts; one for each set of the template's variables.

    Attributes:
        template: with its variables.
        reasoning: how it writes reasoning, if it does.
        system: for conversations that bring none.
        plain_answers: what becomes of those where the prompt opens a block.
    """

    template: PromptTemplate
    reasoning: Reasoning | None
    system: str | None
    plain_answers: PlainAnswers

    @cached_property
    def opens(self) -> bool:
        """Whether the template's prompt opens a block, whatever becomes of it."""
        return bool(self.reasoning and self.reasoning.opened_by(self._probe))

    @cached_property
    def closes(self) -> bool:
        """Whether the prompt closes a block, so that an answer has no reasoning."""
        if self.opens:
            return self.plain_answers == "prefill"
        return bool(self.reasoning and self.reasoning.closed_by(self._probe))

    @cached_property
    def _probe(self) -> str:
        try:
            return self.template.render([_PROBE], add_generation_prompt=True)
        except PromptRefused:
            return ""

    def separated(self, messages: Conversation) -> list[Message]:
        """The messages, with reasoning that stands in a content under a key of its own."""
        if self.reasoning is None:
            return list(messages)
        return [self.reasoning.separated(turn, opened=self.opens) for turn in messages]

    def check_reasoning(self, messages: Conversation) -> None:
        """Refuse to train on reasoning that would not be told apart from its answer.

        Raises:
            PromptRefused: with the first such turn.
        """
        if self.reasoning is None:
            return
        for number, turn in enumerate(with_system(self.separated(messages), self.system), 1):
            if why := self.reasoning.ambiguous(turn):
                raise _refused("reasoning-mixed", f"turn {number}: {why}")

    def prepared(self, messages: Conversation) -> list[Message]:
        """Turns as the template takes them, with the system text."""
        turns = with_system(self.separated(messages), self.system)
        return turns if self.reasoning is None else [self.reasoning.for_template(turn) for turn in turns]

    def prompt(self, turns: Sequence[Message]) -> str:
        """The prompt of prepared turns.

        Raises:
            PromptRefused: the template refuses the conversation.
        """
        text = self.template.render(turns, add_generation_prompt=True)
        if self.reasoning and self.opens and self.closes and self.reasoning.opened_by(text):
            return text + self.reasoning.closes_at_once
        return text

    def through(self, turns: Sequence[Message], prompt: str | None = None) -> str:
        """The text of prepared turns, of which the last is an answer or not.

        Args:
            turns: with the system text.
            prompt: the one before the last turn, if it is there already.

        Raises:
            PromptRefused: the template refuses the conversation, or the prompt has no place for what the last
                turn has: reasoning, or none.
        """
        text = self.template.render(turns, add_generation_prompt=False)
        if self.reasoning is None or turns[-1].get("role") != "assistant":
            return text
        turn = turns[-1]
        number, reasons = len(turns), self._reasons(turn)
        if reasons and self.closes:
            cause = "prompt.plain_answers: prefill" if self.opens else "the template, with these variables"
            raise _refused(
                "reasoning-closed", f"turn {number}: it has reasoning, and {cause} closes the block before it"
            )
        if not self.opens:
            return text
        if not reasons and self.plain_answers == "refuse":
            raise _refused(
                "no-reasoning",
                f"turn {number}: it has no reasoning, and the prompt opens a block for it",
            )
        before = self.template.render(turns[:-1], add_generation_prompt=True) if prompt is None else prompt
        if self.closes and prompt is not None:
            before = before.removesuffix(self.reasoning.closes_at_once)
        return self.reasoning.completed(before, text, turn)

    def _reasons(self, turn: Message) -> bool:
        assert self.reasoning is not None
        if turn.get(KEY) or turn.get(self.reasoning.key):
            return True
        return self.reasoning.form == "content" and self.reasoning.split(turn["content"]) is not None


def _refused(code: str, message: str) -> PromptRefused:
    return PromptRefused(fail(code, message).diagnostics)
