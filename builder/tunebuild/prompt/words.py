"""Encodes words once and remembers them, for tokenizers that part a text between words anyway.

The byte-level pre-tokenizers of GPT-2, Llama 3 and Qwen 2 never put a letter and the space behind it into one
piece, look at nothing before a piece, and give each piece to the model by itself. So between an ASCII letter
and a space with an ASCII letter behind it a text may be cut, and the ids of the parts joined are those of the
text. Where a tokenizer is of another kind, or normalises, adds or drops anything that could tell the
difference, there is no :class:`Words`, and whole texts are encoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from tokenizers import AddedToken, Tokenizer

_SPLITS = frozenset(
    (
        # Llama 3
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
        # Qwen 2
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    )
)
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_CUT = re.compile(r"[A-Za-z] [A-Za-z]")
# Some 15 MB; then all are forgotten.
_MOST = 50_000
# Longer parts are rarely met again.
_LONGEST = 40
_PROBES = (
    "It's a test of  two spaces, 12345 numbers and don't stop",
    "caf\u00e9 ole\u0301 na\u00efve \u4f60\u597d abc def\tghi jkl\n\n mno PQR's stu'll vwx",
    "a b c <|x|> d e \U0001f9ed f g... h (i) j-k l_m n'o p  ",
)


class Words:
    """Ids of texts, put together from the ids of their words. Not for several threads at once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def __reduce__(self) -> tuple[type[Words], tuple[Tokenizer]]:
        return Words, (self._tokenizer,)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        if len(self._known) > _MOST:
            self._known.clear()
        parted = [part(text) for text in texts]
        known = self._known
        new = list({word: None for words in parted for word in words if word not in known})
        encoded = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
        known.update(zip(new, (encoding.ids for encoding in encoded), strict=True))
        found = [list(chain.from_iterable(map(known.__getitem__, words))) for words in parted]
        for word in new:
            if len(word) > _LONGEST:
                del known[word]
        return found


def part(text: str) -> list[str]:
    """A text cut before each space that stands between two ASCII letters."""
    pieces = text.split(" ")
    parts = [pieces[0]]
    before = pieces[0][-1:]
    for piece in pieces[1:]:
        if before in _LETTERS and piece[:1] in _LETTERS:
            parts.append(" " + piece)
        else:
            parts[-1] += " " + piece
        before = piece[-1:]
    return parts


def find_words(tokenizer: Tokenizer, definition: str, added: Mapping[int, AddedToken]) -> Words | None:
    """Words of a tokenizer; ``None`` if it does not part texts between them, as far as is known.

    Args:
        tokenizer: the tokenizer.
        definition: its ``tokenizer.json``.
        added: its added tokens by id.
    """
    parsed = json.loads(definition)
    normalizer = parsed.get("normalizer") or {"type": "NFC"}
    model = parsed["model"]
    if normalizer["type"] != "NFC" or model["type"] != "BPE" or model.get("dropout"):
        return None
    if (
        model.get("continuing_subword_prefix")
        or model.get("end_of_word_suffix")
        or model.get("byte_fallback")
    ):
        return None
    if not _parts_words(parsed.get("pre_tokenizer") or {}):
        return None
    for token in added.values():
        if token.lstrip or token.rstrip or token.single_word or _CUT.search(token.content):
            return None
        # A token that begins or ends with part of a cut would be cut in two.
        if token.content[:1] == " " or token.content[-1:] == " " or not token.content:
            return None
    words = Words(tokenizer)
    literals = [token.content for token in list(added.values())[:20]]
    for probe in (*_PROBES, *(f"x {a}y z{b} q" for a in literals for b in literals[:3])):
        if words.encode([probe]) != [tokenizer.encode(probe, add_special_tokens=False).ids]:
            return None
    return words


def _parts_words(pre_tokenizer: Mapping[str, Any]) -> bool:
    if pre_tokenizer.get("type") == "ByteLevel":
        return bool(pre_tokenizer.get("use_regex", True)) and not pre_tokenizer.get("add_prefix_space", True)
    steps: list[Mapping[str, Any]] = (
        pre_tokenizer.get("pretokenizers", []) if pre_tokenizer.get("type") == "Sequence" else []
    )
    if len(steps) != 2:
        return False
    split, level = steps
    return (
        split.get("type") == "Split"
        and split.get("pattern", {}).get("Regex") in _SPLITS
        and split.get("behavior") == "Isolated"
        and not split.get("invert")
        and level.get("type") == "ByteLevel"
        and not level.get("add_prefix_space", True)
        and not level.get("use_regex", True)
    )
