"""Which readable rows are trained on: splits, leaks and weights, and whether too many were rejected."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from tunebuild.data.likeness import question_digest
from tunebuild.data.rows import Kept, Prepared, Reject
from tunebuild.errors import fail

#: Reasons that the spec asked for. Such rows are listed, and are no sign that the data is bad.
ASKED_FOR = frozenset(("filtered", "duplicate", "leaked", "not-sampled"))


def check_rejects(prepared: Prepared, max_rejected: float) -> None:
    """Stop the build where too many rows were rejected, or none is left.

    Raises:
        TunebuildError: with the first rejects, one a line.
    """
    bad = [reject for reject in prepared.rejects if reject.code not in ASKED_FOR]
    total = len(prepared.kept) + len(bad)
    if not total:
        message = "the filters leave no rows" if prepared.rejects else "there are no training rows"
        raise fail("no-rows", message, path="data.train")
    share = len(bad) / total
    if prepared.kept and share <= max_rejected:
        return
    raise fail(
        "rejected",
        f"{len(bad)} of {total} rows cannot be used ({share:.1%}, "
        f"at most {max_rejected:.1%} may be rejected){_first_lines(bad)}",
        "mend the rows, or raise data.max_rejected",
        path="data.max_rejected",
    )


def split(kept: list[Kept], fraction: float, seed: int) -> tuple[list[Kept], list[Kept]]:
    """Hold out a share of the rows; at least one where the share is not 0. Order is kept.

    Rows that ask the same go the same way, so there may be a few more than asked for.
    """
    count = max(1, round(len(kept) * fraction)) if fraction else 0
    questions = [question_digest(row.messages) for row in kept]
    drawn = random.Random(seed).sample(range(len(kept)), count)  # noqa: S311 - not for secrets
    rows = {(kept[index].file, kept[index].line) for index in drawn}
    # The samples of one row stay together, too.
    asked = {q for q, row in zip(questions, kept, strict=True) if (row.file, row.line) in rows}
    held = [q in asked or (row.file, row.line) in rows for q, row in zip(questions, kept, strict=True)]
    return (
        [row for row, out in zip(kept, held, strict=True) if not out],
        [row for row, out in zip(kept, held, strict=True) if out],
    )


def part_leaks(train: list[Kept], held_out: Sequence[Kept], on_leak: str) -> tuple[list[Kept], list[Reject]]:
    """Take what is held out away from training.

    Returns the rows to train on and the others.

    Raises:
        TunebuildError: under ``on_leak: error``, with the first pairs of rows, one a line.
    """
    asked = {question_digest(row.messages): row for row in held_out}
    leaks = [(row, asked[key]) for row in train if (key := question_digest(row.messages)) in asked]
    if leaks and on_leak == "error":
        pairs = _first_lines([f"{row} asks what {held} asks" for row, held in leaks])
        raise fail(
            "leak",
            f"{len(leaks)} training rows are also held out, so what is measured would be what was learnt"
            f"{pairs}",
            "take them out of one of the files, or say data.eval.on_leak: drop",
            path="data.eval.files",
        )
    leaked = {id(row) for row, _ in leaks}
    return (
        [row for row in train if id(row) not in leaked],
        [row.reject("leaked", f"asks what {held} asks, which is held out") for row, held in leaks],
    )


def weigh(rows: Sequence[Kept], seed: int) -> tuple[list[Kept], list[Reject]]:
    """Repeat rows by their weight; what is left of a weight is a chance, drawn with the seed."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    taken: list[Kept] = []
    left: list[Reject] = []
    for row in rows:
        whole = int(row.weight)
        times = whole + (chance.random() < row.weight - whole if row.weight > whole else 0)
        taken += [row] * times
        if not times:
            left.append(row.reject("not-sampled", f"was not drawn at weight {row.weight:g}"))
    return taken, left


def count_reasons(rejects: Sequence[Reject]) -> dict[str, int]:
    """Rejected rows per reason code."""
    return dict(sorted(Counter(reject.code for reject in rejects).items()))


def _first_lines(found: Sequence[object]) -> str:
    """The first ten, one a line, and how many more there are."""
    more = [f"and {len(found) - 10} more"] if len(found) > 10 else []
    return "".join(f"\n  {line}" for line in [*found[:10], *more])
