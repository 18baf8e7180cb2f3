"""Puts what was trained under the names, and into the layout, in which the base is stored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tunebuild.errors import fail
from tunebuild.merge.adapter_file import Adapter
from tunebuild.merge.low_rank import LowRankUpdate
from tunebuild.merge.nf4 import NF4RoundTrip
from tunebuild.merge.safetensors_io import StoredTensor

# Layers that may be transposed; the skeleton of the model says whether they are.
_PERHAPS_TRANSPOSED = re.compile(r"\.(?:c_attn|c_proj|c_fc|q_attn)\.weight$")
_T = TypeVar("_T")


def under_stored_names(
    adapter: Adapter, round_trip: NF4RoundTrip | None, base: Path, tensors: Sequence[StoredTensor]
) -> tuple[Adapter, NF4RoundTrip | None]:
    """Adapter and round trip by the names of the base's files.

    Raises:
        TunebuildError: DoRA of a weight that is stored transposed.
    """
    stored = {tensor.name for tensor in tensors}
    weights = round_trip.weights if round_trip else frozenset()
    named = {*adapter.touched, *weights}
    if named <= stored and not any(map(_PERHAPS_TRANSPOSED.search, adapter.updates)):
        return adapter, round_trip  # which spares most adapters the import of transformers
    from tunebuild.merge.experts import under_experts_names
    from tunebuild.models.skeleton import build_skeleton, stored_parts, transposed_layers

    skeleton = build_skeleton(base)
    transposed = {f"{name}.weight" for name in transposed_layers(skeleton)}
    parts = stored_parts(skeleton, sorted(stored))
    names = {part.parameter: name for name, part in parts.items() if part.expert is None}
    updates = {
        name: _transpose(update) if name in transposed else update for name, update in adapter.updates.items()
    }
    rows = {tensor.name: tensor.shape[0] for tensor in tensors if tensor.shape}
    updates = under_experts_names(updates, parts, rows)
    adapter = replace(
        adapter,
        updates=_renamed(updates, names),
        replacements=_renamed(adapter.replacements, names),
        rows=_renamed(adapter.rows, names),
    )
    if round_trip:
        round_trip = replace(round_trip, weights=frozenset(names.get(name, name) for name in weights))
    return adapter, round_trip


def _renamed(values: dict[str, _T], names: dict[str, str]) -> dict[str, _T]:
    return {names.get(name, name): value for name, value in values.items()}


def _transpose(update: LowRankUpdate) -> LowRankUpdate:
    """The update of a weight that is stored as ``[inputs, outputs]``."""
    if update.magnitude is not None:
        raise fail(
            "merge-unsupported",
            "the merge has no DoRA for weights stored as [inputs, outputs]",
            "set tuning.lora.dora: false",
            path="tuning.lora.dora",
        )
    return replace(update, a=update.b.T.contiguous(), b=update.a.T.contiguous())
