"""YAML of plain values, with comments above each document, that reads back as the same values anywhere.

Texts are quoted wherever some YAML reader would take them for something else. Readers differ: ``y`` is true
to one of them, ``1e3`` a number to another, ``1:20`` eighty to a third.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import yaml

_WIDTH = 110
_BARE = re.compile(r"[A-Za-z/][A-Za-z0-9_./@-]*(?:(?: |:)[A-Za-z0-9_./@-]+)*")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))


@dataclass(frozen=True, slots=True)
class Document:
    """One resource, or one whole file.

    Attributes:
        value: mappings, sequences, texts, numbers and booleans; ordered as it is written.
        notes: what people should know, a paragraph each.
    """

    value: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def render(documents: Sequence[Document], head: Iterable[str] = ()) -> str:
    """The file; ``head`` is a comment at its top. Raises ``AssertionError`` if it does not read back."""
    parts = ["".join(_comment(note) for note in head)]
    for number, document in enumerate(documents):
        separator = "---\n" if number else ""
        notes = "".join(_comment(note) for note in document.notes)
        text = yaml.dump(
            dict(document.value), Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=1000
        )
        parts.append(f"{separator}{notes}{text}")
    text = "".join(parts)
    assert list(yaml.safe_load_all(text)) == [document.value for document in documents]
    return text


COMMAND = "    "
"""What a note begins with that is a command, which is written on one line, to be copied."""


def _comment(note: str) -> str:
    if note.startswith(COMMAND):
        return f"# {note}\n"
    return "".join(
        f"# {line}\n" for line in wrap(note, _WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    )


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    bare = _BARE.fullmatch(value) and value.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, None if bare else '"')


_Dumper.add_representer(str, _text)
