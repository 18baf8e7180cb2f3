"""Encodes words once and remembers them, for tokenizers that part a text between words anyway.

The byte-level pre-tokenizers of GPT-2, Llama 3 and Qwen 2 never put a visible sign and the space behind it
into one piece, look at nothing before a piece, and give each piece to the model by itself. So before a space
that follows a visible sign a text may be cut, and the ids of the parts joined are those of the text. Where a
tokenizer is of another kind, or normalizes, adds or drops anything that could tell the difference, there is
no :class:`Words`, and whole texts are encoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from tunebuild.prompt.seams import Seams

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
_CUT = re.compile(r"(?<=[!-~\w]) ")
# Some 10 MB. The ones remembered before are kept until there are as many again.
_MOST = 50_000
# Signs to mark cuts with; one that is in none of the texts is taken.
_SEPARATORS = "\0\1\2\3\4\5\6\7"
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
        seams: says which control tokens part every text.
        controls: added tokens. At those that part every text, texts are cut, too; by one of them words are
            joined to be encoded as one text, which is faster.
    """

    def __init__(self, tokenizer: Tokenizer, seams: Seams, controls: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._seams = seams
        self._controls = controls
        self._control = next(filter(seams.cuts, controls), None)
        self._known: dict[str, bytes] = {}
        self._before: dict[str, bytes] = {}

    def __reduce__(self) -> tuple[type[Words], tuple[Tokenizer, Seams, Sequence[str]]]:
        return Words, (self._tokenizer, self._seams, self._controls)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text. Many at once are faster: each of their words is looked up once."""
        import pyarrow as pa  # servers do not have it, and do not come here
        import pyarrow.compute as pc

        separator = next((c for c in _SEPARATORS if not any(c in text for text in texts)), None)
        if separator is None:
            return [e.ids for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        if len(self._known) > _MOST:
            self._known, self._before = {}, self._known
        controls = [c for c in self._controls if c in texts[0] and self._seams.cuts(c)]
        marked = pa.array(mark_cuts(texts, separator, controls), pa.large_string())
        parts = pc.split_pattern(marked, separator)
        codes = parts.flatten().dictionary_encode()
        words = self._ids(codes.dictionary.to_pylist())
        # Where the ids of each different word lie, then where those of each place in the texts do.
        data, sizes = np.frombuffer(b"".join(words), np.int32), np.fromiter(map(len, words), np.int64) // 4
        which = codes.indices.to_numpy()
        counts, ends = sizes[which], np.concatenate(([0], np.cumsum(sizes[which])))
        shifts = (np.cumsum(sizes) - sizes)[which] - ends[:-1]
        ids = data[np.arange(ends[-1]) + np.repeat(shifts, counts)].tolist()
        return [ids[start:end] for start, end in pairwise(ends[parts.offsets.to_numpy()].tolist())]

    def _ids(self, parts: list[str]) -> list[bytes]:
        """Ids of different parts, which from now on are known."""
        found = list(map(self._known.get, parts))
        unseen = []
        for place in [place for place, ids in enumerate(found) if ids is None]:
            part = parts[place]
            if (ids := self._before.get(part)) is None:
                unseen.append(place)
            else:
                found[place] = self._known[part] = ids
        for place, ids in zip(unseen, self._encode([parts[place] for place in unseen]), strict=True):
            found[place] = ids
            if len(parts[place]) <= _LONGEST:
                self._known[parts[place]] = ids
        return found  # type: ignore[return-value]

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


def mark_cuts(texts: Sequence[str], separator: str, controls: Sequence[str]) -> list[str]:
    """Texts with a separator before each space behind a visible sign, and on both sides of controls."""
    marked = [
        _CUT.sub(separator + " ", text) if odd else text.replace(" ", separator + " ")
        for text, odd in zip(texts, _may_hold_no_cut(texts), strict=True)
    ]
    for control in controls:
        marked = [text.replace(control, separator + control + separator) for text in marked]
    return marked


def _may_hold_no_cut(texts: Sequence[str]) -> list[bool]:
    """Whether a space may stand in each text that is not behind a visible sign; ``False`` is certain."""
    encoded = [text.encode() for text in texts]
    data = np.frombuffer(b"".join(encoded), np.uint8)
    visible = (data[:-1] > 0x20) & (data[:-1] < 0x7F)
    places = np.flatnonzero((data[1:] == 0x20) & ~visible) + 1
    ends = np.cumsum([len(text) for text in encoded])
    odd = np.zeros(len(texts) + 1, bool)
    odd[np.searchsorted(ends, places, "right")] = True
    return [bool(one) for one in odd[:-1]]


def find_words(
    tokenizer: Tokenizer, definition: str, added: Mapping[int, AddedToken], seams: Seams
) -> Words | None:
    """Words of a tokenizer; ``None`` if it does not part texts between them, as far as is known.

    Args:
        tokenizer: the tokenizer.
        definition: its ``tokenizer.json``.
        added: its added tokens by id.
        seams: says of an added token whether it parts every text.
    """
    parsed = json.loads(definition)
    normalizer = parsed.get("normalizer") or {"type": "NFC"}
    model = parsed["model"]
    if normalizer.get("type") != "NFC" or model.get("type") != "BPE" or model.get("dropout"):
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
    controls = [token.content for token in added.values()]
    words = Words(tokenizer, seams, controls)
    literals = controls[:20]
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
