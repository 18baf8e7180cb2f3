"""The effective spec in a lock: a digest that decides, and its fields, from which a difference is named."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tunebuild.spec import Spec
from tunebuild.spec.canonical import effective, flow
from tunebuild.store import Digest, digest_json

_LONGEST, _AROUND = 60, 20
_MISSING = object()


class SpecRecord(BaseModel):
    """An effective spec: after ``extends`` and ``--set``, with every default.

    Attributes:
        digest: of all of it; an image built from it has the same in its labels.
        fields: dotted path -> value, of all fields that are not at their defaults.
        defaults: the same of those that are; items of lists have no number. A lock keeps them once for all
            its specs, so there may be more than this spec has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    digest: Digest
    fields: dict[str, Any]
    defaults: dict[str, Any] = Field(default_factory=dict)


def record_of(spec: Spec) -> SpecRecord:
    """What a lock records of a spec. The order of its keys, its comments and its files have no say."""
    whole = effective(spec)
    fields, every = flat(effective(spec, defaults=False)), flat(whole)
    defaults = {_without_numbers(path): value for path, value in every.items() if path not in fields}
    return SpecRecord(digest=digest_json(whole), fields=fields, defaults=dict(sorted(defaults.items())))


def flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted path -> value, in order of path. A list of plain values is one value, as is what is empty."""
    return dict(sorted(_flat(value, "")))


def field_changes(old: SpecRecord, new: SpecRecord) -> Iterator[tuple[str, str, str]]:
    """Fields in which two specs differ: path, and both values as YAML; empty where one has no such field."""
    if old.digest == new.digest:
        return
    found = False
    for path in sorted({*old.fields, *new.fields}):
        before, after = _value(old, path), _value(new, path)
        if before != after:
            found = True
            yield (path, *_shown(before, after))
    for path in sorted({*old.defaults} & {*new.defaults}):
        # A default matters where neither spec sets the field.
        set_anywhere = any(_without_numbers(field) == path for field in (*old.fields, *new.fields))
        if old.defaults[path] != new.defaults[path] and not set_anywhere:
            found = True
            yield (f"{path} (default)", *_shown(old.defaults[path], new.defaults[path]))
    if not found:
        yield "spec", _abridged(old.digest) if old.digest else "", _abridged(new.digest)


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{_key(key)}" if path else _key(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{index}]")
    else:
        # As one would write it: the fields that take fractions keep 3 as 3.0.
        yield path, int(value) if isinstance(value, float) and value.is_integer() else value


def _key(name: str) -> str:
    """A key that shows where it ends, so that no two fields share a path."""
    return name if re.fullmatch(r"[\w-]+", name) else json.dumps(name, ensure_ascii=False)


def _value(record: SpecRecord, path: str) -> Any:
    if path in record.fields:
        return record.fields[path]
    return record.defaults.get(_without_numbers(path), _MISSING)


def _without_numbers(path: str) -> str:
    return re.sub(r"\[\d+\]", "[]", path)


def _shown(old: Any, new: Any) -> tuple[str, str]:
    """Both as YAML on one line; of long texts, what is around their first difference."""
    before, after = ("" if value is _MISSING else _text(value) for value in (old, new))
    if max(len(before), len(after)) <= _LONGEST:
        return before, after
    pairs = enumerate(zip(before, after, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(before), len(after)))
    return _window(before, at), _window(after, at)


def _text(value: Any) -> str:
    return "none" if value is None else "''" if value == "" else flow(value).replace("\n", " ")


def _window(text: str, at: int) -> str:
    start = max(0, at - _AROUND) if len(text) > _LONGEST else 0
    cut = text[start : start + _LONGEST]
    return f"{'...' if start else ''}{cut}{'...' if start + len(cut) < len(text) else ''}"


def _abridged(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
