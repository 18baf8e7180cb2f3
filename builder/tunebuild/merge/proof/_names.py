"""Where the tensors of a checkpoint go in the model that transformers makes of it.

The answer comes from transformers' own tables, by which it loads checkpoints: names that changed, a prefix
that is there or not, experts that are files apart and one parameter in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunebuild.merge.proof._files import Slab


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stored tensor is in the model.

    Attributes:
        parameter: its name there.
        expert: number along the first dimension, if each expert is stored apart.
        first: its first row in that expert.
        plain: whether the values are the stored ones in their order.
    """

    parameter: str
    expert: int | None = None
    first: int = 0
    plain: bool = True


def places(model: Any, stored: Mapping[str, Slab]) -> dict[str, Place]:
    """The place of each stored tensor; one that the model does not take has a name that no parameter has."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    parameters = dict(model.state_dict())
    found = {}
    for name in stored:
        renamed, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, parameters)
        if pattern is None:
            found[name] = Place(renamed)
            continue
        rule = next(rule for rule in converters if pattern in rule.source_patterns)
        found[name] = _of_expert(name, renamed, pattern, rule, stored)
    return found


def _of_expert(name: str, renamed: str, pattern: str, rule: Any, stored: Mapping[str, Slab]) -> Place:
    operations = [type(one).__name__ for one in rule.operations]
    match = re.search(_expression(pattern), name)
    if operations not in (["MergeModulelist"], ["MergeModulelist", "Concatenate"]) or match is None:
        return Place(renamed, plain=False)
    before = rule.source_patterns[: rule.source_patterns.index(pattern)]
    siblings = (name[: match.start()] + _with_number(one, match["n"]) + name[match.end() :] for one in before)
    return Place(renamed, int(match["n"]), _rows(siblings, stored))


def _expression(pattern: str) -> str:
    text = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    return re.escape(text).replace(r"\*", r"(?P<n>\d+)")


def _with_number(pattern: str, number: str) -> str:
    return pattern.removeprefix("^").removesuffix("$").replace("\\.", ".").replace("*", number)


def _rows(names: Iterable[str], stored: Mapping[str, Slab]) -> int:
    return sum(stored[name].rows for name in names)
