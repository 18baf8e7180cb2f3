"""The embedding and the head of a model, which many architectures keep as one tensor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def ends_of(model: Any) -> tuple[str, str]:
    """Names of the embedding's and the head's module; empty for one that a model does not have."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {id(module): name for name, module in model.named_modules()}
    return names.get(id(ends[0]), ""), names.get(id(ends[1]), "")


def is_tied(model: Any) -> bool:
    """Whether embedding and head are one tensor."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    return head is not None and head.weight is embedding.weight


def tied_weights(model: Any) -> frozenset[str]:
    """Names of the embedding's and the head's weights if they are one tensor; else none."""
    return frozenset(f"{end}.weight" for end in ends_of(model)) if is_tied(model) else frozenset()


def is_named(module: str, targets: Iterable[str]) -> bool:
    """PEFT's rule: whether one of the targets is a module's name, or its end."""
    return any(module == target or module.endswith(f".{target}") for target in targets)
