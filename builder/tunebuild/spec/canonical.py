"""The effective spec as text: one spelling for one meaning, which reads back as the same spec."""

from __future__ import annotations

from typing import Any

import yaml

from tunebuild.printable import is_printable, printable
from tunebuild.spec.spec import Spec
from tunebuild.spec.yaml_loader import plain_scalar


def effective(spec: Spec, *, defaults: bool = True) -> dict[str, Any]:
    """The spec as JSON values under the names that a file uses.

    Args:
        spec: the spec.
        defaults: whether to name what the spec left to its default.
    """
    value: dict[str, Any] = spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=not defaults, exclude={"extends"}
    )
    return {"apiVersion": spec.api_version, **value}


def canonical_yaml(spec: Spec, *, defaults: bool = True) -> str:
    """The spec as YAML, keys in the order of the schema."""
    text: str = yaml.dump(
        effective(spec, defaults=defaults),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    return printable(text)


def flow(value: Any) -> str:
    """A value on one line of YAML, as one would write it."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=1000)
    return printable(text).removesuffix("\n").removesuffix("\n...")


class _Dumper(yaml.SafeDumper):
    """Quotes by this language's rules: PyYAML's would leave ``2e-4`` bare, which is a number here."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    bare = isinstance(plain_scalar(value), str)
    style = None if bare else "'"
    if not is_printable(value):
        style = '"'  # which has escapes, in YAML's spelling and ours
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(str, _text)
