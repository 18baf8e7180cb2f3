"""Which texts are nearly the same: MinHash signatures, and a join of them by bands.

A signature is :data:`PERMUTATIONS` numbers; the share in which two agree estimates the share of word triples
that two texts have in common (their Jaccard similarity), within about 0.05. Signatures are cut into bands,
and only texts that agree in a whole band are compared, so the time grows with the number of texts and not
with its square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tunebuild.data.likeness import fold
from tunebuild.errors import fail
from tunebuild.extras import install_command

_Array = npt.NDArray[Any]

#: Numbers in a signature. 16 bits of each are kept: two differ in all of them but once in 65,536 times.
PERMUTATIONS = 64

_SEED = 1
_WORDS = 3
# A longer run of letters is no word but a text in a script without spaces.
_LONGEST_WORD = 20
# How likely two texts at the threshold are to share a band.
_FOUND = 0.98
# In a band, texts are compared with the first of those that agree in it, the rest with the first of the rest,
# and so on. Texts that agree in a band and are unlike are rare, or fill the data set.
_ROUNDS = 8


def signatures(texts: Sequence[str]) -> _Array:
    """Signatures of texts, ``[texts, PERMUTATIONS]`` of uint16; the same in every process.

    Raises:
        TunebuildError: rensa is not installed.
    """
    try:
        from rensa import RMinHash
    except ModuleNotFoundError:
        raise fail(
            "no-rensa", "near duplicates need rensa", install_command(("plan",)), path="data.deduplicate"
        ) from None
    rows = RMinHash.digests_from_token_sets([_shingles(text) for text in texts], PERMUTATIONS, _SEED)
    return np.array(rows, np.uint32).reshape(-1, PERMUTATIONS).astype(np.uint16)


def first_near(found: _Array, threshold: float) -> _Array:
    """For each text the first before it that it is near to and that is found by a common band, else -1.

    Args:
        found: signatures in order.
        threshold: smallest similarity that counts as near.
    """
    near = np.full(len(found), len(found))
    for band in _bands(found, threshold):
        order = np.argsort(band, kind="stable")
        keys = band[order]
        # Texts of one key stand side by side, in order; alone ones are left out.
        starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        sizes = np.diff([*starts, len(keys)])
        members = order[np.repeat(sizes > 1, sizes)]
        groups = np.repeat(np.arange(np.sum(sizes > 1)), sizes[sizes > 1])
        for _ in range(_ROUNDS):
            if not len(members):
                break
            firsts = np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1])))
            leader = np.repeat(members[firsts], np.diff([*firsts, len(members)]))
            others = leader != members
            members, groups, leader = members[others], groups[others], leader[others]
            alike = _similarity(found, members, leader) >= threshold
            np.minimum.at(near, members[alike], leader[alike])
            members, groups = members[~alike], groups[~alike]
    return np.where(near < len(found), near, -1)


def joined_labels(labels: _Array, near: _Array) -> _Array:
    """Labels of groups after those of near texts became one.

    Args:
        labels: for each text the first of its group.
        near: for each text one before it that it is near to, or -1.
    """
    parent = np.arange(len(labels))

    def root(text: int) -> int:
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = int(parent[text])
        return text

    for text in np.flatnonzero(near >= 0):
        one, other = root(int(labels[text])), root(int(labels[near[text]]))
        parent[max(one, other)] = min(one, other)
    return np.array([root(int(label)) for label in labels], np.int64)


def _shingles(text: str) -> list[str]:
    words = [
        piece
        for word in fold(text).split()
        for piece in ([word] if word.isascii() or len(word) <= _LONGEST_WORD else word)
    ]
    if len(words) < _WORDS:
        return [" ".join(words) or text]
    return [" ".join(words[i : i + _WORDS]) for i in range(len(words) - _WORDS + 1)]


def _bands(found: _Array, threshold: float) -> Iterator[_Array]:
    """One number a text and band, equal where the signatures agree in it."""
    width = 1
    while 1 - (1 - threshold ** (2 * width)) ** (PERMUTATIONS // (2 * width)) >= _FOUND and width < 4:
        width *= 2
    wide = np.ascontiguousarray(found).view({1: np.uint16, 2: np.uint32, 4: np.uint64}[width])
    for band in range(wide.shape[1] if len(found) else 0):
        yield wide[:, band]


def _similarity(found: _Array, one: _Array, other: _Array) -> _Array:
    parts = [slice(i, i + 10_000) for i in range(0, len(one), 10_000)]
    return np.concatenate(
        [np.zeros(0), *((found[one[p]] == found[other[p]]).mean(axis=1) for p in parts)], dtype=np.float64
    )
