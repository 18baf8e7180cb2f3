"""Secrets: a spec names the environment variable, never the value.

The reference is all that a spec, a key, a lock or an image ever holds; the value is looked up where it is
used, and nowhere else.
"""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import Field, StringConstraints

from tunebuild.errors import fail

#: What a reference starts with, wherever it stands.
MARK = "${env:"

_REFERENCE = re.compile(r"^\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}$")

#: Text of the form ``${env:NAME}``. ``writeOnly`` tells editors, and our own messages, not to show it.
Secret = Annotated[
    str,
    StringConstraints(pattern=_REFERENCE.pattern),
    Field(json_schema_extra={"writeOnly": True}),
]


def reveal(reference: str, path: str) -> str:
    """The value that a reference stands for.

    Args:
        reference: ``${env:NAME}``.
        path: the field, for the message.

    Raises:
        TunebuildError: ``no-secret``: the variable is not set.
    """
    match = _REFERENCE.match(reference)
    assert match, "the schema allows nothing else"
    value = os.environ.get(match[1])
    if not value:
        raise fail("no-secret", f"the environment variable {match[1]} is not set", "export it", path=path)
    return value
