"""What can be read of a spec that does not fit the schema, so that rules across fields still have a say."""

from __future__ import annotations

import json
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from tunebuild.spec.section import Section

_S = TypeVar("_S", bound=Section)


def readable(section: type[_S], value: dict[str, Any]) -> _S:
    """The section with the fields that can be read; looking at another one raises ``AttributeError``.

    A key that is not known may be meant for any field that is not there, so beside one of those the absent
    fields count as unreadable, not as left to their defaults.

    Args:
        section: the model.
        value: the mapping that stands in the document.
    """
    fields: dict[str, Any] = {}
    known = {field.alias or name: name for name, field in section.model_fields.items()}
    unreadable = set()
    for key, name in known.items():
        if key in value:
            try:
                fields[name] = _read(section, name, value[key])
            except ValidationError:
                unreadable.add(name)
        elif section.model_fields[name].is_required() or value.keys() - known.keys():
            unreadable.add(name)
    made = section.model_construct(**fields)
    for name in unreadable:
        made.__dict__.pop(name, None)
    return made


def _read(section: type[Section], name: str, value: Any) -> Any:
    annotation = section.model_fields[name].annotation
    if isinstance(value, dict) and (inner := _section(annotation)):
        return readable(inner, value)
    if isinstance(value, list) and (items := _item_section(annotation)):
        return tuple(readable(items, item if isinstance(item, dict) else {"": item}) for item in value)
    return _adapter(section, name).validate_json(json.dumps(value), strict=True)


def _section(annotation: Any) -> type[Section] | None:
    """The section that a field may hold."""
    branches = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((b for b in branches if isinstance(b, type) and issubclass(b, Section)), None)


def _item_section(annotation: Any) -> type[Section] | None:
    """The section that a field holds a list of."""
    return _section(get_args(annotation)[0]) if get_origin(annotation) is tuple else None


@cache
def _adapter(section: type[Section], name: str) -> TypeAdapter[Any]:
    field = section.model_fields[name]
    annotation: Any = field.annotation
    return TypeAdapter(Annotated[annotation, *field.metadata] if field.metadata else annotation)
