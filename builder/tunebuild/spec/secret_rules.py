"""Rules of secrets: where one may be named, and that none is written out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tunebuild.errors import Diagnostic
from tunebuild.spec.folder import Folder
from tunebuild.spec.schema import schema_at
from tunebuild.spec.secret import MARK
from tunebuild.spec.spec import Spec
from tunebuild.spec.words import dotted
from tunebuild.spec.yaml_loader import NodePath

# The forms of Hugging Face, OpenAI-like, AWS, GitHub and GitLab tokens, and of private keys.
_TOKEN = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{20,}|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}"
    r"|\bglpat-[A-Za-z0-9_-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


def secrets_stay_outside(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """References to variables stand only where a secret is expected, and secrets stand nowhere."""
    for path, text in _texts(spec.model_dump(mode="json", by_alias=True, warnings=False), ()):
        if any(schema.get("writeOnly") for schema in schema_at(path)):
            continue
        if MARK in text:
            message = "takes no ${env:...}: a build may not depend on where it runs"
            yield Diagnostic("env", message, "write the value, or use --set", dotted(path))
        elif _TOKEN.search(text):
            message = "looks like an access token"  # without the text, which would end up in logs
            hint = (
                "take it out and revoke it; a spec names secrets as ${env:NAME}, for example in model.token"
            )
            yield Diagnostic("secret", message, hint, dotted(path))


def _texts(value: Any, path: NodePath) -> Iterator[tuple[NodePath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, index))
