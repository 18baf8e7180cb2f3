"""The spec that is being made: values by path, and comments on the choices among them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tunebuild.spec.yaml_loader import parse_dotted


class Draft:
    """A spec in the making.

    Attributes:
        value: sections and values, as YAML would hold them.
        comments: by dotted path, why a value is what it is.
    """

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self.comments: dict[str, str] = {}

    def set(self, path: str, value: Any, comment: str = "") -> None:
        """Write a value, and make the sections and list items that lead to it."""
        here: Any = self.value
        parts = parse_dotted(path)
        for part, following in pairwise(parts):
            empty: Any = [] if isinstance(following, int) else {}
            if isinstance(part, int):
                while len(here) <= part:
                    here.append({} if not isinstance(following, int) else [])
                here = here[part]
            else:
                here = here.setdefault(part, empty)
        last = parts[-1]
        if isinstance(last, int):
            while len(here) <= last:
                here.append(None)
        here[last] = value
        if comment:
            self.comments[path] = comment
        else:
            self.comments.pop(path, None)

    def get(self, path: str) -> Any:
        """The value at a path, or ``None``."""
        here: Any = self.value
        for part in parse_dotted(path):
            try:
                here = here[part]
            except (KeyError, IndexError, TypeError):
                return None
        return here

    def remark(self, path: str, comment: str) -> None:
        """Comment on a value that is, or will be, there."""
        there = self.comments.get(path)
        self.comments[path] = f"{there} {comment}" if there else comment
