"""Encodes words once and remembers them, for tokenizers that part a text between words anyway.

The byte-level pre-tokenizers of GPT-2, Llama 3 and Qwen 2 never put a visible sign and the space behind it
into one piece, look at nothing before a piece, and give each piece to the model by itself. So before a space
that follows a visible sign a text may be cut, and the ids of the parts joined are those of the text. Where a
tokenizer is of another kind, or normalises, adds or drops anything that could tell the difference, there is
no :class:`Words`, and whole texts are encoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

#: A part of a text without the space before it, or the beginning of a text, which has none.
Part = str | tuple[str]

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
# Letters, digits and ASCII signs are no white space to any tokenizer.
_NO_CUT = re.compile(r"[^!-~\w] ")
_CUT = re.compile(r"(?<=[!-~\w]) ")
# Some 10 MB. The ones remembered before are kept until there are as many again.
_MOST = 50_000
# Longer parts are rarely met again.
_LONGEST = 40
_PROBES = (
    "It's a test of  two spaces, 12345 numbers and don't stop",
    "caf\u00e9 ole\u0301 na\u00efve \u4f60\u597d abc def\tghi jkl\n\n mno PQR's stu'll vwx",
    "a b c <|x|> d e \U0001f9ed f g... h (i) j-k l_m n'o p  ",
)


class Words:
    """Ids of texts, put together from the ids of their words. Not for several threads at once.

    Args:
        tokenizer: the tokenizer.
        control: an added token that parts every text (:meth:`tunebuild.prompt.seams.Seams.cuts`), by which
            words are joined to be encoded as one text, which is faster; ``None`` where there is none.
    """

    def __init__(self, tokenizer: Tokenizer, control: str | None) -> None:
        self._tokenizer = tokenizer
        self._control = control
        self._known: dict[Part, bytes] = {}
        self._before: dict[Part, bytes] = {}

    def __reduce__(self) -> tuple[type[Words], tuple[Tokenizer, str | None]]:
        return Words, (self._tokenizer, self._control)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        if len(self._known) > _MOST:
            self._known, self._before = {}, self._known
        parted = [part(text) for text in texts]
        found = [list(map(self._known.get, parts)) for parts in parted]
        holes = [
            (row, place, parts[place])
            for row, parts in zip(found, parted, strict=True)
            if None in row
            for place, ids in enumerate(row)
            if ids is None
        ]
        new = self._learn({missing: None for _, _, missing in holes})
        for row, place, missing in holes:
            row[place] = new[missing]
        return [np.frombuffer(b"".join(row), np.int32).tolist() for row in found]  # type: ignore[arg-type]

    def _learn(self, parts: Mapping[Part, None]) -> dict[Part, bytes]:
        """Ids of parts that are not known, and from now on are."""
        new = {p: self._before[p] for p in parts if p in self._before}
        self._known.update(new)
        unseen = {p: p[0] if isinstance(p, tuple) else " " + p for p in parts if p not in new}
        for (p, text), ids in zip(unseen.items(), self._encode(list(unseen.values())), strict=True):
            new[p] = ids
            if len(text) <= _LONGEST:
                self._known[p] = ids
        return new

    def _encode(self, texts: list[str]) -> list[bytes]:
        if self._control is None or not texts:
            encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            return [np.array(encoding.ids, np.int32).tobytes() for encoding in encoded]
        (joined,) = self._tokenizer.encode_batch_fast([self._control.join(texts)], add_special_tokens=False)
        ids = np.array(joined.ids, np.int32)
        # A text may hold the control token, too; then it goes on behind it.
        behind = np.cumsum([text.count(self._control) + 1 for text in texts]) - 1
        controls = np.flatnonzero(ids == self._tokenizer.token_to_id(self._control))
        ends = np.append(controls, len(ids))[behind]
        data = ids.tobytes()
        return [data[start:end] for start, end in zip([0, *4 * ends[:-1] + 4], 4 * ends, strict=True)]


def part(text: str) -> list[Part]:
    """A text cut at each space that stands behind a visible sign, without those spaces."""
    parts: list[Part] = [*(text.split(" ") if _NO_CUT.search(text) is None else _CUT.split(text))]
    # The key of a beginning is never that of a part with a space before it.
    parts[0] = (str(parts[0]),)
    return parts


def find_words(
    tokenizer: Tokenizer, definition: str, added: Mapping[int, AddedToken], cuts: Callable[[str], bool]
) -> Words | None:
    """Words of a tokenizer; ``None`` if it does not part texts between them, as far as is known.

    Args:
        tokenizer: the tokenizer.
        definition: its ``tokenizer.json``.
        added: its added tokens by id.
        cuts: says of an added token whether it parts every text.
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
        # A token with a space would be cut in two.
        if token.lstrip or token.rstrip or token.single_word or " " in token.content or not token.content:
            return None
    words = Words(tokenizer, next((token.content for token in added.values() if cuts(token.content)), None))
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
