"""The modules of a base without its weights, and where each of its parameters is stored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def build_skeleton(directory: Path) -> Any:
    """The causal language model that transformers makes of a directory, on the meta device.

    Raises:
        ValueError, KeyError, OSError, ImportError: transformers cannot make one, in its own words.
    """
    import torch
    from transformers import AutoConfig

    from tunebuild.serve.engines.classes import model_class

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        skeleton = model_class(config).from_config(config, trust_remote_code=False)
    skeleton.tie_weights()
    return skeleton


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A parameter of the model, or the part of one, that a stored tensor holds as it is.

    Attributes:
        parameter: its name in the model.
        expert: which matrix of a parameter that stacks those of all experts; ``None`` of any other.
        before: the tensors that hold the rows before it in that matrix.
    """

    parameter: str
    expert: int | None = None
    before: tuple[str, ...] = ()


def stored_parts(skeleton: Any, stored: Iterable[str]) -> dict[str, StoredPart]:
    """What each stored tensor is in the model, by the tensor's name.

    transformers adds or drops a prefix, follows names that changed between versions, and stacks experts. A
    tensor that it rearranges in another way is left out.
    """
    found = {}
    for name, renamed, pattern, rule in _loaded(skeleton, stored):
        if pattern is None:
            found[name] = StoredPart(renamed)
        elif part := _of_expert(name, renamed, pattern, rule):
            found[name] = part
    return found


def stored_names(skeleton: Any, stored: Iterable[str]) -> dict[str, str]:
    """The stored tensor of each parameter that loading only renames, by the parameter's name."""
    parts = stored_parts(skeleton, stored)
    return {part.parameter: name for name, part in parts.items() if part.expert is None}


def loaded_names(skeleton: Any, stored: Iterable[str]) -> dict[str, str]:
    """The parameter that each stored tensor is loaded into, alone or with others, by the tensor's name."""
    return {name: renamed for name, renamed, _, _ in _loaded(skeleton, stored)}


def _loaded(skeleton: Any, stored: Iterable[str]) -> Iterator[tuple[str, str, str | None, Any]]:
    """Each stored tensor that has a place, its parameter, and the pattern and rule that rearrange it."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(skeleton)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    parameters = skeleton.state_dict()
    for name in stored:
        renamed, pattern = rename_source_key(
            name, renamings, converters, skeleton.base_model_prefix, parameters
        )
        if renamed in parameters:
            rule = next((rule for rule in converters if pattern in rule.source_patterns), None)
            yield name, renamed, pattern, rule


def _of_expert(name: str, renamed: str, pattern: str, rule: Any) -> StoredPart | None:
    """The place of an expert's matrix, if stacking them, and joining rows before, is all that is done."""
    operations = [type(one).__name__ for one in rule.operations]
    plain = [_plain(one) for one in rule.source_patterns]
    own = _plain(pattern)
    match = re.search(re.escape(own).replace(r"\*", r"(\d+)"), name)
    if operations not in (["MergeModulelist"], ["MergeModulelist", "Concatenate"]) or match is None:
        return None
    before = plain[: plain.index(own)]
    return StoredPart(
        renamed,
        int(match[1]),
        tuple(name[: match.start()] + one.replace("*", match[1]) + name[match.end() :] for one in before),
    )


def _plain(pattern: str) -> str:
    return pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")


def transposed_layers(skeleton: Any) -> frozenset[str]:
    """Names of the layers whose weight is stored as ``[inputs, outputs]``, as GPT-2's are."""
    from transformers.pytorch_utils import Conv1D

    return frozenset(name for name, module in skeleton.named_modules() if isinstance(module, Conv1D))


def outside_of_text(model: Any) -> tuple[str, ...]:
    """Names of the parts of a multimodal model that text does not run through, such as its vision tower."""
    config = getattr(model, "config", None)
    if config is None or config.get_text_config() is config:
        return ()
    decoder = model.get_decoder()
    path = next((name for name, module in model.named_modules() if module is decoder), "")
    if not path:
        return ()
    head = model.get_output_embeddings()
    return tuple(
        name
        for name, module in model.named_modules()
        if name
        and module is not head
        and name.count(".") <= path.count(".")
        and not f"{path}.".startswith(f"{name}.")
    )
