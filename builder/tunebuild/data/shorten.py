"""Makes a conversation fit by cutting what the user said, never a supervised answer."""

from __future__ import annotations

from collections.abc import Sequence

from tunebuild.prompt import Example, Message, Renderer


def shorten(
    messages: Sequence[Message], renderer: Renderer, max_length: int
) -> tuple[list[Message], Example] | None:
    """Cut the beginning of user turns, the first turn first, until the tokens are ``max_length`` at most.

    Each cut is as short as it can be, and leaves at least a character. Returns ``None`` where answers and
    template alone are too long.

    Raises:
        PromptRefused: the template refuses a shortened conversation.
    """
    turns = list(messages)
    for index, turn in enumerate(turns):
        if turn["role"] != "user" or not turn["content"]:
            continue
        # Invariant: cutting `low` characters is too little; `shorter` and `example` are what `high` gives.
        low, high = 0, len(turn["content"]) - 1
        shorter = _cut(turns, index, high)
        example = renderer.examples(shorter)[-1][1]
        if len(example.ids) > max_length:
            turns = shorter
            continue
        while high - low > 1:
            middle = (low + high) // 2
            candidate = _cut(turns, index, middle)
            found = renderer.examples(candidate)[-1][1]
            if len(found.ids) > max_length:
                low = middle
            else:
                high, shorter, example = middle, candidate, found
        return shorter, example
    return None


def _cut(turns: Sequence[Message], index: int, characters: int) -> list[Message]:
    turn = {**turns[index], "content": turns[index]["content"][characters:]}
    return [*turns[:index], turn, *turns[index + 1 :]]
