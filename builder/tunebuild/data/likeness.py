"""When two rows count as the same."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Collection, Sequence

from tunebuild.prompt import Message
from tunebuild.prompt.messages import TOOLS

# What becomes of each ASCII character.
_FOLDED = "".join(c.lower() if c.isalnum() else " " for c in map(chr, range(128)))


def row_digest(messages: Sequence[Message], masked: Collection[int] = (), *, folded: bool) -> bytes:
    """Equal for conversations that are equal and train the same; ``folded`` ignores case and the like.

    Args:
        messages: the turns.
        masked: places of answers that carry no loss.
        folded: whether case, punctuation and white space are ignored.
    """
    mark = "".join(f"-{place}" for place in sorted(masked) if place < len(messages))
    return _digest(messages, folded=folded, mark=mark)


def question_digests(messages: Sequence[Message], answers: Sequence[int]) -> list[bytes]:
    """Of each answer a digest that is equal where the same is asked, whatever is answered; folded."""
    return [_digest(question, folded=True) for question in questions_of(messages, answers)]


def questions_of(messages: Sequence[Message], answers: Sequence[int]) -> list[list[Message]]:
    """What each answer answers: all that was said before it, but for system turns. Of plain text, the whole.

    A system turn says how to answer, tools what with. With them or without, the same is asked.

    Args:
        messages: the turns.
        answers: places of answers; of plain text, the number of turns.
    """
    return [
        [turn for turn in messages[:answer] if turn["role"] not in ("system", TOOLS)] for answer in answers
    ]


def fold(text: str) -> str:
    """Letters and digits of a text in one case and one spelling, words parted by single spaces.

    A text without any stays as it is, so that ``?`` and ``!`` are two texts.
    """
    if text.isascii():  # the same, and many times faster
        kept = text.translate(_FOLDED)
    else:
        plain = unicodedata.normalize("NFKC", text).casefold()
        kept = "".join(c if c.isalnum() or unicodedata.combining(c) else " " for c in plain)
    return " ".join(kept.split()) or text


_ENCODE = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode


def _digest(messages: Sequence[Message], *, folded: bool, mark: str = "") -> bytes:
    parts = [mark]
    for turn in messages:
        content = fold(turn["content"]) if folded else turn["content"]
        # Lengths keep apart what two turns say. A turn with more in it begins with a brace.
        simple = len(turn) == 2
        parts.append(
            f"{turn['role']} {len(content)} {content}" if simple else _ENCODE({**turn, "content": content})
        )
    return hashlib.blake2b("".join(parts).encode(), digest_size=16).digest()
