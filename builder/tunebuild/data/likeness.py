"""When two rows count as the same."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence

from tunebuild.data.formats import PLAIN
from tunebuild.prompt import Message

# What becomes of each ASCII character.
_FOLDED = "".join(c.lower() if c.isalnum() else " " for c in map(chr, range(128)))


def row_digest(messages: Sequence[Message], *, folded: bool) -> bytes:
    """Equal for equal conversations; ``folded`` ignores case, punctuation and white space."""
    return _digest(messages, folded=folded)


def question_digest(messages: Sequence[Message]) -> bytes:
    """Equal where the same is asked, whatever is answered; folded. Of plain text, the whole."""
    asked = messages if messages[0]["role"] == PLAIN else messages[:-1]
    return _digest(asked, folded=True)


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


def _digest(messages: Sequence[Message], *, folded: bool) -> bytes:
    parts = []
    for turn in messages:
        content = fold(turn["content"]) if folded else turn["content"]
        # Lengths keep apart what two turns say. A turn with more in it begins with a brace.
        simple = len(turn) == 2
        parts.append(
            f"{turn['role']} {len(content)} {content}" if simple else _ENCODE({**turn, "content": content})
        )
    return hashlib.blake2b("".join(parts).encode(), digest_size=16).digest()
