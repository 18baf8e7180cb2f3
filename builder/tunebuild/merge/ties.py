"""Finds the embedding and the head that an architecture keeps as one tensor, and holds the adapter to it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch

from tunebuild.errors import fail
from tunebuild.merge.adapter_file import Adapter

_IN_A_LAYER = re.compile(r"\.\d+\.")


def respect_ties(adapter: Adapter, base: Path, stored: frozenset[str], *, whole: bool = False) -> Adapter:
    """The adapter, with one replacement for embedding and head under the names that the base stores.

    A model that was trained ``whole`` has them as one tensor under one name, as transformers saves them.

    Raises:
        TunebuildError: the base ties its embeddings, and the adapter would make them two tensors: the merged
            model, which has one, could not be the trained one. PEFT's own merge changes both for either.
    """
    touched = {*adapter.updates, *adapter.replacements}
    if all(map(_IN_A_LAYER.search, touched)):
        return adapter  # which spares most adapters the import of transformers
    tied = tied_weights(base)
    if low_rank := sorted(tied & adapter.updates.keys()):
        raise fail(
            "tied-embeddings",
            f"a low-rank update of {low_rank[0]} cannot be merged: the base ties embedding and head",
            "leave them out of the targets; tuning.lora.modules_to_save trains both as one",
            path="tuning.lora.targets",
        )
    saved = sorted(tied & adapter.replacements.keys())
    if not saved:
        return adapter
    values = [adapter.replacements[name] for name in saved]
    one = values[0].read()
    if (len(saved) < len(tied) and not whole) or not all(torch.equal(one, v.read()) for v in values[1:]):
        raise fail(
            "tied-embeddings",
            f"{saved[0]} was trained apart from what the base ties it to",
            path="tuning.lora.modules_to_save",
        )
    rest = {name: value for name, value in adapter.replacements.items() if name not in tied}
    return replace(adapter, replacements={**rest, **dict.fromkeys(tied & stored, values[0])})


def tied_weights(base: Path) -> frozenset[str]:
    """Names of the embedding's and the head's weights if they are one tensor; builds no weights."""
    from tunebuild.models.skeleton import build_skeleton

    skeleton = build_skeleton(base)
    embedding, head = skeleton.get_input_embeddings(), skeleton.get_output_embeddings()
    if head is None or head.weight is not embedding.weight:
        return frozenset()
    return frozenset(
        f"{name}.weight" for name, module in skeleton.named_modules() if module in (embedding, head)
    )
