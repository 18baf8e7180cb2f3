"""What an importer works on: the foreign settings, the spec in the making, and the tool's own defaults."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunebuild.importers.draft import Draft
from tunebuild.importers.ledger import Ledger, Unresolved
from tunebuild.importers.result import Notice
from tunebuild.printable import printable_line


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a tool does where its configuration is silent, as far as tunebuild would do otherwise.

    Attributes:
        warmup_ratio: in place of ``warmup_steps``.
        steps_first: whether ``warmup_steps: 0`` takes precedence over a ``warmup_ratio``.
        alpha: of LoRA; ``None`` means that it is twice the rank.
        targets: of LoRA.
    """

    rows_at_once: int
    accumulation: int
    epochs: float
    learning_rate: float
    schedule: str
    max_length: int
    seed: int = 42
    max_steps: int | None = None
    warmup_steps: int = 0
    warmup_ratio: float | None = None
    steps_first: bool = False
    weight_decay: float = 0.0
    rank: int = 8
    alpha: int | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] | str = "all-linear"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a configuration.

    Attributes:
        key: its path in the configuration.
        name: what the tool calls it, without the sections around it.
        value: as it is written; a mapping where it has parts.
    """

    key: str
    name: str
    value: Any


@dataclass(slots=True)
class Work:
    """One import under way."""

    tool: str
    source: Path
    directory: Path
    ledger: Ledger
    defaults: Defaults
    settings: Sequence[Setting]
    draft: Draft = field(default_factory=Draft)
    notices: list[Notice] = field(default_factory=list)

    def find(self, *names: str) -> Setting | None:
        """The first setting of these names that says something and has no outcome yet."""
        for name in names:
            for setting in self.settings:
                if setting.name == name and not is_empty(setting.value) and self.ledger.is_open(setting.key):
                    return setting
        return None

    def number(self, *names: str) -> tuple[Setting, float] | None:
        """The same for one that must be a number; one that is none is not carried."""
        while setting := self.find(*names):
            number = as_number(setting.value)
            if number is not None:
                return setting, number
            self.refuse_value(setting, "a number")
        return None

    def refuse_value(self, setting: Setting, wanted: str) -> None:
        """Settle a setting whose value cannot be read."""
        if isinstance(setting.value, Unresolved):
            text = f"only running the script would tell what `{setting.value.source}` is"
            self.ledger.lost(setting.key, text, f"put {wanted} in the spec yourself")
        else:
            self.ledger.lost(setting.key, f"{shown(setting.value)} is not {wanted}", "correct it in the spec")

    def note(self, text: str, *, attention: bool = False) -> None:
        """Say something that no key stands for, once."""
        if all(text != notice.text for notice in self.notices):
            self.notices.append(Notice(text, attention))


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: then a tool uses its default."""
    return value is None or value in ("", [], {})


def is_off(value: Any) -> bool:
    """Whether a value switches something off."""
    return (
        is_empty(value)
        or value is False
        or (isinstance(value, str) and value.lower() in ("false", "no", "none", "off", "null", "disabled"))
        or (isinstance(value, int | float) and value == 0)
    )


def as_number(value: Any) -> float | None:
    """A number that is one, or text that spells one, as YAML 1.1 reads ``2e-5``."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        try:
            number = float(value.replace("_", ""))
        except ValueError:
            return None
        return number if math.isfinite(number) else None
    return None


def plain_number(value: float) -> int | float:
    """A whole number as one."""
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)


def shown(value: Any) -> str:
    """A value on one line, not too long."""
    from tunebuild.spec.canonical import flow

    text = printable_line(value.source if isinstance(value, Unresolved) else flow(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def slug(text: str) -> str:
    """Text as a name that a spec takes; empty if nothing is left of it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:57].strip("-")
