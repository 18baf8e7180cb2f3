"""Whether a base's files hold the model that its ``config.json`` describes: all of it, and nothing else.

transformers fills what is missing with random numbers and passes over what is left, with a warning at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tunebuild.errors import TunebuildError, fail

_SHOWN = 3


def check_stored(skeleton: Any, tensors: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a base of which a parameter is stored nowhere, or in another shape, or that holds a stray one.

    Args:
        skeleton: the model, on the meta device, its tied weights tied.
        tensors: shapes of what is stored.

    Raises:
        TunebuildError: with the first names.
    """
    from tunebuild.models.skeleton import loaded_names, stored_names

    names = loaded_names(skeleton, tensors)
    loaded, copies = set(names.values()), _copies(skeleton)
    ignored = _pattern(skeleton._keys_to_ignore_on_load_missing)
    missing = sorted(min(c) for c in copies if loaded.isdisjoint(c) and not any(map(ignored.search, c)))
    if missing and not _splits(skeleton):
        raise _apart(f"its files lack {_some(missing)}; training would begin from random numbers there")
    parameters = skeleton.state_dict()
    for parameter, stored in stored_names(skeleton, tensors).items():
        made, found = tuple(parameters[parameter].shape), tensors[stored]
        if sorted(found) != sorted(made):  # a layer stored the other way round is for the merge to refuse
            raise _apart(f"its {stored} is {_sizes(found)}, and config.json makes it {_sizes(made)}")
    buffers = [name for name, _ in skeleton.named_buffers()]
    passed = _pattern(
        (
            *(skeleton._keys_to_ignore_on_load_unexpected or ()),
            *(r"rotary_emb\.inv_freq" for name in buffers if name.endswith("rotary_emb.inv_freq")),
            *(r"(^|\.)position_ids$" for name in buffers if name.endswith("position_ids")),
        )
    )
    if stray := sorted(name for name in tensors if name not in names and not passed.search(name)):
        raise _apart(f"its files also hold {_some(stray)}, for which the model has no place")


def _copies(skeleton: Any) -> list[set[str]]:
    """Names of each parameter: several for one that is tied."""
    found: dict[int, set[str]] = {}
    for name, value in skeleton.named_parameters(remove_duplicate=False):
        found.setdefault(id(value), set()).add(name)
    return list(found.values())


def _splits(skeleton: Any) -> bool:
    """Whether loading makes several parameters of one tensor, of which only the first is known by name."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    return any(len(rule.target_patterns) > 1 for rule in get_model_conversion_mapping(skeleton))


def _pattern(parts: Iterable[str] | None) -> re.Pattern[str]:
    return re.compile("|".join(f"({part})" for part in parts or ()) or r"(?!)")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _sizes(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _apart(what: str) -> TunebuildError:
    return fail(
        "base-model",
        f"the base's config.json and its weights do not belong together: {what}",
        "fetch or save the model again, both at once",
        path="model.base",
    )
