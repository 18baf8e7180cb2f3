"""Reads specs of older versions of the language. Each step turns one version into the next.

A spec is migrated as it is read, file by file, so an overlay and its base may be of different versions.
``tunebuild render-spec`` prints the result, which is how a file is brought up to date.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunebuild.spec.yaml_loader import Document

CURRENT = "tunebuild/v1"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step.

    Attributes:
        before, after: versions.
        summary: what changed, for people.
        apply: changes the document in place. It may meet values of any type, since nothing has been
            validated yet; what it cannot read it leaves for the schema to name.
    """

    before: str
    after: str
    summary: str
    apply: Callable[[Document], None]


def migrate(document: Document) -> Document:
    """The document in the current version; the same object, changed."""
    value = document.value
    for step in MIGRATIONS:
        if isinstance(value, dict) and value.get("apiVersion") == step.before:
            step.apply(document)
            value["apiVersion"] = step.after
            document.notes.append(
                f"{document.file}: {step.before} is read as {step.after} ({step.summary}); "
                "'tunebuild render-spec' prints it so"
            )
    return document


def _pieces_to_rows(document: Document) -> None:
    tuning = document.value.get("tuning")
    if not isinstance(tuning, dict) or "gradient_accumulation" not in tuning:
        return
    pieces, rows = tuning["gradient_accumulation"], tuning.get("batch_size", 8)
    whole = type(pieces) is int and type(rows) is int and pieces > 0 and rows % pieces == 0
    new = rows // pieces if whole else pieces
    document.move(("tuning", "gradient_accumulation"), ("tuning", "micro_batch_size"), new)


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "tunebuild/v1beta1",
        "tunebuild/v1",
        "tuning.gradient_accumulation, the number of pieces, became tuning.micro_batch_size, the rows in one",
        _pieces_to_rows,
    ),
)
