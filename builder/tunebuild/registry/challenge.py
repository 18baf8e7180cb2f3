"""Reads ``WWW-Authenticate``: which schemes a registry offers, with their parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - a grammar's token
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?:,|$)')
_SCHEME = re.compile(rf"\s*({_TOKEN})(?=\s|,|$)\s*,?")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme, in lower case, and its parameters, such as ``realm``, ``service`` and ``scope``."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """The challenges of a header's value; what is malformed ends the list."""
    found: list[Challenge] = []
    position = 0
    while position < len(header):
        if found and (match := _PARAMETER.match(header, position)):
            value = match[2] if match[2] is not None else match[3]
            found[-1].parameters[match[1].lower()] = re.sub(r"\\(.)", r"\1", value)
        elif match := _SCHEME.match(header, position):
            found.append(Challenge(match[1].lower()))
        else:
            break
        position = match.end()
    return tuple(found)
