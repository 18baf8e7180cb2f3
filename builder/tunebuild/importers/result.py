"""What an import gives: a spec, what became of each foreign key, and what else to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunebuild.importers.ledger import Kind, Outcome


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that no single key stands for.

    Attributes:
        text: what is so, and what to do about it if anything.
        attention: whether somebody has to look at it before the spec can be built as meant.
    """

    text: str
    attention: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """A foreign configuration as a spec.

    Attributes:
        tool: the tool whose configuration it was, as people call it.
        source: the file.
        spec: the spec as YAML, with comments.
        keys: all keys of the configuration.
        outcomes: one for each key.
        notices: what no key stands for: defaults of the tool, and what is to be filled in.
    """

    tool: str
    source: str
    spec: str
    keys: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    notices: tuple[Notice, ...]

    def of(self, kind: Kind) -> tuple[Outcome, ...]:
        """The outcomes of one kind."""
        return tuple(outcome for outcome in self.outcomes if outcome.kind == kind)

    @property
    def attention(self) -> bool:
        """Whether anything needs somebody's attention."""
        return any(notice.attention for notice in self.notices) or bool(self.of("lost"))

    def as_json(self) -> Mapping[str, Any]:
        """For machines."""
        return {
            "tool": self.tool,
            "source": self.source,
            "spec": self.spec,
            "carried": [
                {"key": o.key, "path": o.path, **({"remark": o.text} if o.text else {})}
                for o in self.of("carried")
            ],
            "same": [{"key": o.key, "reason": o.text} for o in self.of("same")],
            "not_carried": [{"key": o.key, "consequence": o.text, "todo": o.todo} for o in self.of("lost")],
            "notices": [{"text": n.text, "attention": n.attention} for n in self.notices],
        }
