"""Loss curves as points of an SVG: scales, ticks and few enough points to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

Points = tuple[tuple[int, float], ...]

WIDTH, HEIGHT = 640.0, 220.0
"""Of the plotted area, in the SVG's units."""

_LEAST = 1e-6  # a loss below is drawn as nothing
_MOST = 320  # points of a line; more than that is less than two units apart


@dataclass(frozen=True)
class Curve:
    """Training and held-out loss by step. Scales are linear and start at 0."""

    train: Points
    held_out: Points

    @cached_property
    def last(self) -> int:
        """The last step."""
        return max((step for step, _ in (*self.train, *self.held_out)), default=1)

    @cached_property
    def top(self) -> float:
        """The highest tick: what the highest loss is rounded up to."""
        return self.ticks[-1]

    @cached_property
    def ticks(self) -> tuple[float, ...]:
        """Round losses from 0 to above the highest."""
        highest = max((loss for _, loss in (*self.train, *self.held_out)), default=1.0)
        highest = max(highest, _LEAST)
        raw = highest / 4
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * (1 - 1e-9))
        return tuple(round(step * n, 12) for n in range(math.ceil(highest / step - 1e-9) + 1))

    @property
    def line(self) -> str:
        """``points`` of the training loss."""
        return self._points(_thinned(self.train))

    @property
    def smooth(self) -> str:
        """``points`` of its running mean over a fiftieth of the steps."""
        return self._points(_thinned(_running_mean(self.train, max(1, len(self.train) // 50))))

    @property
    def held_out_line(self) -> str:
        """``points`` of the held-out loss."""
        return self._points(self.held_out)

    @property
    def dots(self) -> list[tuple[float, float, int, float]]:
        """Where the held-out loss was measured: x, y, step, loss."""
        return [(self.x(step), self.y(loss), step, loss) for step, loss in self.held_out]

    def x(self, step: float) -> float:
        """Place of a step."""
        return round(WIDTH * step / self.last, 2)

    def y(self, loss: float) -> float:
        """Place of a loss; SVG counts downwards."""
        return round(HEIGHT * (1 - loss / self.top), 2)

    def _points(self, points: Sequence[tuple[int, float]]) -> str:
        return " ".join(f"{self.x(step):g},{self.y(loss):g}" for step, loss in points)


def _running_mean(points: Points, width: int) -> Points:
    found, window = [], 0.0
    for index, (step, loss) in enumerate(points):
        window += loss - (points[index - width][1] if index >= width else 0.0)
        found.append((step, max(0.0, window / min(index + 1, width))))
    return tuple(found)


def _thinned(points: Points) -> Points:
    step = max(1, math.ceil(len(points) / _MOST))
    kept = points[::step]
    return kept if not points or kept[-1] == points[-1] else (*kept, points[-1])
