"""Reads other tools' YAML as they do, which is YAML 1.1: ``yes`` is true.

A key that is there twice is an error, though: they drop the first without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from tunebuild.errors import Diagnostic, Position, TunebuildError, fail

_HINT = "give the configuration that the other tool is started with"


class _Loader(yaml.CSafeLoader):
    """PyYAML's safe loader, which also notices a key that is there twice."""

    file = ""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in seen and key.value != "<<":
                    mark = key.start_mark
                    place = Position(self.file, mark.line + 1, mark.column + 1)
                    message = f"key '{key.value}' is here twice, and the other tool uses the last one"
                    hint = "remove the other one"
                    raise TunebuildError((Diagnostic("duplicate-key", message, hint, position=place),))
                seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def load(text: str, name: str) -> Mapping[str, Any]:
    """A configuration as a mapping.

    Raises:
        TunebuildError: if it is not YAML, or no mapping.
    """
    loader = _Loader(text)
    loader.file = name
    try:
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Position(name, mark.line + 1, mark.column + 1) if mark else None
        message = f"is not YAML: {error.problem or 'it cannot be read'}"
        raise TunebuildError((Diagnostic("import-yaml", message, _HINT, position=place),)) from None
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise fail("import-yaml", f"{name} is not YAML that can be read: {error}", _HINT) from None
    finally:
        loader.dispose()
    if not isinstance(value, Mapping):
        kind = "nothing" if value is None else "a list" if isinstance(value, list) else "text"
        raise fail("import-format", f"{name} holds {kind}, not a configuration", _HINT)
    return {str(key): inner for key, inner in value.items()}
