"""What nobody can see, spelled out: the one place where text from outside is made safe to show.

Rows, specs, file names, models and servers hold whatever their authors typed. On a terminal a control
character moves the cursor or sets a color, a bidi mark reorders a line, a zero-width one hides a word, and
half of a surrogate pair cannot be written at all. What is printed, logged or put on a page passes here on
its way out, and nowhere else, so messages can be made of any text.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Code points, not categories: a report must not change with the Unicode tables of the Python that writes it.
_CONTROLS = "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f"
_BIDI = "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069"
# Unicode's Default_Ignorable_Code_Point without what has a rule of its own below, and what breaks lines.
_UNSEEN = (
    "\\xad\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b\\u2028\\u2029\\u2060-\\u2065\\u206a-\\u206f"
    "\\u3164\\ufe00-\\ufe0d\\ufeff\\uffa0\\ufff0-\\ufffb\\ufffe\\uffff"
    "\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff"
)
_SURROGATES = "\\ud800-\\udfff"
# Joiners and presentation selectors belong to emoji and to the spelling of scripts that have no case.
_CASELESS = "\\u0590-\\u0dff\\u0f00-\\u109f\\u1780-\\u18af\\u2190-\\u2bff\\ufe0f\\U0001f000-\\U0001faff"
_JOINERS = f"(?<![{_CASELESS}])[\\u200c\\u200d]|[\\u200c\\u200d](?![{_CASELESS}])"
_SELECTORS = f"(?<![{_CASELESS}#*0-9\\xa9\\xae\\u203c-\\u3299])[\\ufe0e\\ufe0f]"

_HIDDEN = re.compile(f"[{_CONTROLS}{_BIDI}{_UNSEEN}{_SURROGATES}]|{_JOINERS}|{_SELECTORS}")
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def printable(text: str) -> str:
    """Text with what cannot be seen as ``\\x1b``, ``\\u202e``, ``\\ud800``. Line breaks and tabs stay."""
    return text if text.isascii() and text.isprintable() else _HIDDEN.sub(_spelled, text)


def printable_line(text: str) -> str:
    """:func:`printable` on one line: line breaks and tabs are spelled out, too."""
    shown = printable(text)
    return shown.replace("\n", "\\n").replace("\t", "\\t")


def printable_json(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """JSON that reads back as the same value, with JSON's own escapes for what cannot be seen.

    Args:
        value: anything that :mod:`json` takes.
        indent: blanks of a level; ``None`` puts everything on one line.
        sort_keys: whether keys are in order.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, sort_keys=sort_keys)
    return _HIDDEN.sub(lambda match: json.dumps(match[0])[1:-1], text)


def is_printable(text: str) -> bool:
    """Whether :func:`printable` leaves a text as it is."""
    return not _HIDDEN.search(text)


def _spelled(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
