"""Which tokens of a conversation are supervised: what follows each prompt, up to the end of the turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from tunebuild.errors import fail
from tunebuild.prompt.example import Example
from tunebuild.prompt.seams import Seams
from tunebuild.prompt.template import PromptRefused
from tunebuild.prompt.tokenizer import PromptTokenizer

P = ParamSpec("P")
T = TypeVar("T")

Encode = Callable[[str], list[int]]

# One of them joins with nothing that an answer may begin with.
_BEFORE = ("a", ".", "\n")


@dataclass(frozen=True, slots=True)
class Answer:
    """An assistant turn: its place, the prompt before it, and the text of the conversation through it."""

    index: int
    prompt: str
    through: str


class Supervision:
    """Finds them, and holds each prompt against the training text.

    Args:
        tokenizer: of the prompt.
        turn_end_id: the token that ends a turn.

    Attributes:
        seams: finds prompts without encoding them; ``None`` where that cannot be relied on.
    """

    def __init__(self, tokenizer: PromptTokenizer, turn_end_id: int) -> None:
        self._tokenizer = tokenizer
        self._turn_end_id = turn_end_id
        self._turn_end = tokenizer.token_text(turn_end_id)
        self.seams: Seams | None = tokenizer.seams

    def check_seams(self, rendered: Sequence[list[Answer] | PromptRefused], encode: Encode) -> None:
        """Hold the first conversation's seams against its prompts' own ids, and do without if they differ."""
        answers = next((a for a in rendered if not isinstance(a, PromptRefused)), None)
        if answers is not None and self.seams is not None:
            quick = or_refusal(self.example, answers, encode)
            self.seams, seams = None, self.seams
            if quick == or_refusal(self.example, answers, encode) or isinstance(quick, PromptRefused):
                self.seams = seams

    def example(self, answers: list[Answer], encode: Encode) -> Example:
        """The sample in which these answers are supervised, the last of which ends it.

        Raises:
            PromptRefused: a prompt is not a token prefix, an answer does not end, or history is rewritten.
        """
        text = answers[-1].through
        full = encode(text)
        supervised = tuple(
            self._find(answer, text, full) or self._supervise(answer, full, encode) for answer in answers
        )
        # Text after the last end-of-turn token (a newline, say) is never served and never supervised.
        return Example(full[: supervised[-1][1]], supervised)

    def example_of(self, answer: Answer, encode: Encode) -> Example:
        """The sample of one answer alone, which is its only supervised part.

        Where the tokenizer would join the prompt's end with the answer's beginning (a line break before
        indented code, say), the answer is encoded apart from it: so it is generated, too.

        Raises:
            PromptRefused: as :meth:`example`.
        """
        try:
            return self.example([answer], encode)
        except PromptRefused as refusal:
            if refusal.diagnostics[0].code != "prompt-not-prefix":
                raise
            joined = self._joined(answer, encode)
            if joined is None:
                raise
            return joined

    def _joined(self, answer: Answer, encode: Encode) -> Example | None:
        """The prompt's ids and the answer's, each encoded for itself, where they spell the same text."""
        if not answer.through.startswith(answer.prompt):
            return None
        prompt, text = encode(answer.prompt), answer.through[len(answer.prompt) :]
        through = self._tokenizer.spell(encode(answer.through))
        # Text at the very beginning is another text to some tokenizers, and to others behind a control token.
        for before in (self._turn_end, *_BEFORE):
            head, both = encode(before), encode(before + text)
            ids = [*prompt, *both[len(head) :]]
            if both[: len(head)] != head or self._tokenizer.spell(ids) != through:
                continue
            end = self._end(ids)
            if end <= len(prompt):
                raise _endless(answer)
            return Example(ids[:end], ((len(prompt), end),))
        return None

    def _find(self, answer: Answer, text: str, full: list[int]) -> tuple[int, int] | None:
        """What :meth:`_supervise` says, without encoding anything, or ``None`` where that cannot be known."""
        # Quoted user text is encoded in another way.
        if self.seams is None or self._tokenizer.is_quoted(text):
            return None
        start = self.seams.prompt(answer.prompt, text, full)
        end = self.seams.through(answer.through, self._turn_end, text, full)
        return None if start is None or end is None or end <= start else (start, end)

    def _supervise(self, answer: Answer, full: list[int], encode: Encode) -> tuple[int, int]:
        prompt, through = encode(answer.prompt), encode(answer.through)
        if (at := _first_difference(prompt, through)) is not None:
            raise refused(
                "prompt-not-prefix",
                f"turn {answer.index + 1}: the prompt is not a token prefix of the training text; "
                f"token {at} is {self._show(prompt, at)} when prompting "
                f"and {self._show(through, at)} when training",
            )
        end = self._end(through)
        if end <= len(prompt):
            raise _endless(answer)
        if (at := _first_difference(through[:end], full)) is not None:
            raise refused(
                "history-rewritten",
                f"turn {answer.index + 1}: the template rewrites it once more turns follow "
                f"(first at token {at})",
            )
        return len(prompt), end

    def _end(self, ids: list[int]) -> int:
        """Where the last turn ends, its token included; 0 where none does."""
        return len(ids) - ids[::-1].index(self._turn_end_id) if self._turn_end_id in ids else 0

    def _show(self, ids: list[int], at: int) -> str:
        return repr(self._tokenizer.token_text(ids[at])) if at < len(ids) else "missing"


def _endless(answer: Answer) -> PromptRefused:
    return refused("no-end-of-turn", f"turn {answer.index + 1}: no end-of-turn token after the answer")


def _first_difference(prefix: list[int], ids: list[int]) -> int | None:
    """Index of the first token at which ``prefix`` is not a prefix of ``ids``."""
    if ids[: len(prefix)] == prefix:
        return None
    return next((i for i, (a, b) in enumerate(zip(prefix, ids, strict=False)) if a != b), len(ids))


def or_refusal(make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | PromptRefused:
    """What a call gives, or its refusal."""
    try:
        return make(*args, **kwargs)
    except PromptRefused as refusal:
        return refusal


def refused(code: str, message: str) -> PromptRefused:
    """A refusal, to be raised."""
    return PromptRefused(fail(code, message).diagnostics)
