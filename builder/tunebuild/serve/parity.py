"""What the build measured of the model that is served, for the engine that serves it to reproduce.

Log-probabilities of held-out tokens, under the served model and under its base, and a few answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunebuild.errors import fail

FILE_NAME = "parity.json"

#: Largest mean distance of a token's log-probability, in nats, where both sides compute in float32, and where
#: one of them rounds to 16 bits. Two implementations of one model differ by rounding and by the order of
#: their sums: about 1e-5 and 0.01.
TOLERANCE = {"float32": 0.005, "bfloat16": 0.1}
#: How far from 1 the share of the fine-tuning that is found may be, unless rounding hides it.
SHARE_TOLERANCE = 0.25
_HIDDEN = 4.0  # standard errors of that share within which it says nothing
_SAME = 1e-4  # nats; a fine-tuning that moves no token by more has no share that could be measured


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Closed):
    """A held-out row.

    Attributes:
        ids: its tokens.
        at: places of the supervised tokens, none the first.
        tuned: log-probability of each under the served model, given the tokens before it.
        base: the same under the base.
    """

    ids: list[int]
    at: list[int]
    tuned: list[float]
    base: list[float]


class Written(_Closed):
    """A greedy answer of the served model, without what ended it."""

    prompt: list[int]
    answer: list[int]
    max_tokens: int


class Parity(_Closed):
    """What the build measured.

    Attributes:
        dtype: in which precision.
        rows: a few of those held out.
        answers: to a few of their prompts.
    """

    format: Literal[1] = 1
    dtype: str
    rows: list[Row]
    answers: list[Written]

    @classmethod
    def load(cls, file: Path) -> Parity:
        """Read it.

        Raises:
            TunebuildError: ``parity-missing`` or ``bad-parity``.
        """
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise fail("parity-missing", f"{file} is not there", "build the image again") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            message = f"{file}: {where}: {first['msg']}"
            raise fail("bad-parity", message, "build the image again") from None

    def save(self, file: Path) -> None:
        """Write it; equal contents give equal bytes."""
        file.write_text(self.model_dump_json() + "\n", "utf-8")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found.

    Attributes:
        tokens: how many log-probabilities were compared.
        distance: their mean distance, in nats.
        tolerance: the most that it may be.
        share: how much of the way from the base to the served model was found; ``None`` if that way is too
            short to be measured.
        answers: how many answers were compared.
        problem: why the engine may not serve; empty if it may.
    """

    tokens: int
    distance: float
    tolerance: float
    share: float | None
    answers: int
    problem: str = ""

    def __str__(self) -> str:
        share = "" if self.share is None else f", {self.share:.0%} of the fine-tuning"
        return (
            f"{self.tokens} held-out tokens within {self.distance:.2g} of {self.tolerance:g} nats{share}, "
            f"{self.answers} answers"
        )


def compare(
    served: Sequence[float], tuned: Sequence[float], base: Sequence[float], tolerance: float
) -> Verdict:
    """Log-probabilities of the same tokens under what is served, the model that was built, and its base.

    The share is the least-squares ``c`` of ``served - base = c (tuned - base)``: 0 where an adapter does
    nothing, 1/2 where it has half its strength. Rounding averages out of it, so it also tells a light
    fine-tuning from none, which the mean distance cannot.
    """
    count = len(tuned)
    if not count:
        return Verdict(0, 0.0, tolerance, None, 0)
    if not all(map(math.isfinite, served)):
        return Verdict(count, math.inf, tolerance, None, 0, "a log-probability is not a number")
    distance = sum(abs(a - b) for a, b in zip(served, tuned, strict=True)) / count
    moved = [b - c for b, c in zip(tuned, base, strict=True)]
    square = sum(x * x for x in moved)
    share = None
    if square > count * _SAME**2:
        share = sum((a - c) * m for a, c, m in zip(served, base, moved, strict=True)) / square
        rest = [a - c - share * m for a, c, m in zip(served, base, moved, strict=True)]
        error = math.sqrt(sum(x * x for x in rest) / count / square)
        if abs(share - 1) > max(SHARE_TOLERANCE, _HIDDEN * error):
            problem = (
                f"held-out tokens show {share:.0%} of the fine-tuning: "
                + ("it answers as the base does; " if abs(share) < SHARE_TOLERANCE else "")
                + "the adapter or the weights are not those of the build"
            )
            return Verdict(count, distance, tolerance, share, 0, problem)
    problem = ""
    if distance > tolerance:
        problem = (
            f"log-probabilities of held-out tokens differ from the build's by {distance:.3g} nats on "
            f"average, more than {tolerance:g}: other weights, another adapter or another precision"
        )
    return Verdict(count, distance, tolerance, share, 0, problem)
