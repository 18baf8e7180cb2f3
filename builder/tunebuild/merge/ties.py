"""Finds the embedding and the head that an architecture keeps as one tensor, and holds the adapter to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from tunebuild.errors import fail
from tunebuild.merge.adapter_file import Adapter
from tunebuild.merge.low_rank import LowRankUpdate

_T = TypeVar("_T")
_IN_A_LAYER = re.compile(r"\.\d+\.")


def respect_ties(adapter: Adapter, base: Path, stored: frozenset[str], *, whole: bool = False) -> Adapter:
    """The adapter, with one change of embedding and head for each name under which the base stores them.

    A model that was trained ``whole`` has them as one tensor under one name, as transformers saves them.

    Args:
        adapter: by names of the model's parameters.
        base: the base model's directory.
        stored: names of the base's tensors.
        whole: whether all weights were trained.

    Raises:
        TunebuildError: the base ties its embeddings, and the adapter would make them two tensors: the merged
            model, which has one, could not be the trained one. PEFT's own merge changes both for either.
    """
    if all(map(_IN_A_LAYER.search, adapter.touched)):
        return adapter  # which spares most adapters the import of transformers
    from tunebuild.models.ends import tied_weights
    from tunebuild.models.skeleton import build_skeleton, stored_names

    skeleton = build_skeleton(base)
    tied = tied_weights(skeleton)
    updates, replacements = _of(adapter.updates, tied), _of(adapter.replacements, tied)
    rows = _of(adapter.rows, tied)
    found = [kind.keys() for kind in (updates, replacements, rows) if kind]
    if not found:
        return adapter
    # PEFT writes rows of what is tied for the embedding alone, and transformers a whole model so.
    named = tied if whole or rows else found[0]
    values = [replacement.read() for replacement in replacements.values()]
    lows = list(updates.values())
    if (
        len(found) > 1
        or len(rows) > 1
        or named != tied
        or not all(torch.equal(values[0], value) for value in values)
        or not all(_same(lows[0], low) for low in lows)
    ):
        first = min(min(names) for names in found)
        raise fail(
            "tied-embeddings",
            f"{first} was trained apart from what the base ties it to, so both cannot be one tensor",
            "train it again: what is tied gets one adapter",
            path="tuning.lora.targets",
        )
    kept = sorted(tied & (stored_names(skeleton, sorted(stored)).keys() | stored))
    return Adapter(
        _for_all(adapter.updates, tied, kept),
        _for_all(adapter.replacements, tied, kept),
        _for_all(adapter.rows, tied, kept),
    )


def _of(values: Mapping[str, _T], names: frozenset[str]) -> dict[str, _T]:
    return {name: value for name, value in values.items() if name in names}


def _for_all(values: Mapping[str, _T], tied: frozenset[str], names: Sequence[str]) -> dict[str, _T]:
    """Values with the one of tied names under those of them that are stored."""
    others = {name: value for name, value in values.items() if name not in tied}
    one = list(_of(values, tied).values())[:1]
    return {**others, **{name: value for value in one for name in names}}


def _same(one: LowRankUpdate, other: LowRankUpdate) -> bool:
    return (
        one.magnitude is None
        and other.magnitude is None
        and one.scale == other.scale
        and torch.equal(one.a, other.a)
        and torch.equal(one.b, other.b)
    )
