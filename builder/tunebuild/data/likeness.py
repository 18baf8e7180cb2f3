"""When two rows count as the same."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence

from tunebuild.data.formats import PLAIN
from tunebuild.prompt import Message

_SIGNS = re.compile(r"[^a-z0-9]+")


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
        kept = _SIGNS.sub(" ", text.lower())
    else:
        plain = unicodedata.normalize("NFKC", text).casefold()
        kept = "".join(c if c.isalnum() or unicodedata.combining(c) else " " for c in plain)
    return " ".join(kept.split()) or text


_ENCODE = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode


def _digest(messages: Sequence[Message], *, folded: bool) -> bytes:
    turns = [{**m, "content": fold(m["content"])} for m in messages] if folded else list(messages)
    return hashlib.blake2b(_ENCODE(turns).encode(), digest_size=16).digest()
