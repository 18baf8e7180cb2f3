"""Which samples are trained on: duplicates, leaks, splits and weights, and whether too many were rejected."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunebuild.data.columns import Array, Columns, first_equal
from tunebuild.data.near import first_near, joined_labels
from tunebuild.data.reject_limit import check_rejects
from tunebuild.data.rejects import Rejects
from tunebuild.errors import fail
from tunebuild.grammar import listed
from tunebuild.spec.data import DataSpec


@dataclass(frozen=True, slots=True)
class Selection:
    """What becomes of each sample.

    Attributes:
        times: how often it is trained on in an epoch, int32.
        held: whether it is held out.
        duplicate_of, leaks_to: the sample that it repeats, that is held out and asks the same; -1 for none.
        near: whether it only nearly repeats that sample.
    """

    times: Array
    held: Array
    duplicate_of: Array
    leaks_to: Array
    near: Array

    @property
    def evaluated(self) -> Array:
        """A mask of the samples that are held out and measured on."""
        return self.held & (self.duplicate_of < 0)

    @property
    def distinct(self) -> Array:
        """Indices of the samples that are there for training, whatever their weight."""
        return np.flatnonzero(~self.held & (self.duplicate_of < 0) & (self.leaks_to < 0))


def select(
    columns: Columns,
    rejects: Rejects,
    data: DataSpec,
    held_files: Sequence[bool],
    weights: Sequence[float],
    seed: int,
) -> Selection:
    """Choose.

    Args:
        columns: the samples.
        rejects: rows rejected so far.
        data: the spec's policies.
        held_files: for each file whether it is held out whole.
        weights: for each file how often to train on a row.
        seed: of the split and of what a weight leaves to chance.

    Raises:
        TunebuildError: no row is left, too many are rejected, or training and held-out rows ask the same.
    """
    held = np.array(held_files, bool)[columns.source]
    duplicate_of = np.full(len(columns), -1)
    if data.deduplicate != "off":
        for part in (np.flatnonzero(~held), np.flatnonzero(held)):
            first = part[first_equal(columns.row[part])]
            duplicate_of[part] = np.where(first == part, -1, first)
    exact = duplicate_of >= 0
    if data.near is not None:
        for part in (np.flatnonzero(~held & ~exact), np.flatnonzero(held & ~exact)):
            first = first_near(columns.row_signature[part], data.near)
            duplicate_of[part] = np.where(first < 0, -1, part[first])
    unique = duplicate_of < 0
    check_rejects(int(unique.sum()), rejects, data.max_rejected)
    questions = first_equal(columns.question)
    if data.near is not None:
        questions = joined_labels(questions, first_near(columns.question_signature, data.near))
    asked_by = columns.asked_by
    leaks_to = find_leaks(questions, asked_by, unique & ~held, unique & held)
    if data.eval.on_leak == "error":
        _refuse_leaks(columns, leaks_to, nearly="nearly " if data.near else "")
    left = np.flatnonzero(unique & ~held & (leaks_to < 0))
    if data.eval.fraction:
        rows = columns.source.astype(np.int64) << 40 | columns.line
        groups = belonging_together(rows, questions, asked_by)[left]
        held[left[split(groups, data.eval.fraction, seed)]] = True
    times = np.zeros(len(columns), np.int32)
    trained = left[~held[left]]
    times[trained] = weigh(np.array(weights)[columns.source[trained]], seed)
    return Selection(times, held, duplicate_of, leaks_to, (duplicate_of >= 0) & ~exact)


def find_leaks(questions: Array, asked_by: Array, train: Array, held: Array) -> Array:
    """For each sample of ``train`` one of ``held`` that has a question in common with it, else -1.

    Args:
        questions: equal numbers below their number for equal questions.
        asked_by: of each question, the sample.
        train, held: masks of samples.
    """
    asked = np.full(len(questions), -1)
    of_held = np.flatnonzero(held[asked_by])
    asked[questions[of_held]] = asked_by[of_held]
    leaks_to = np.full(len(train), -1)
    # Backwards, so that of several questions the first one stands in the end.
    leaks = np.flatnonzero(train[asked_by] & (asked[questions] >= 0))[::-1]
    leaks_to[asked_by[leaks]] = asked[questions[leaks]]
    return leaks_to


def belonging_together(rows: Array, questions: Array, asked_by: Array) -> Array:
    """Numbers of samples, equal where they are of one row, ask the same, or are linked by others that do.

    Args:
        rows: equal numbers for samples of one row.
        questions, asked_by: as in :func:`find_leaks`.
    """
    parent = np.arange(len(rows))

    def root(sample: int) -> int:
        while parent[sample] != sample:
            parent[sample] = parent[parent[sample]]
            sample = int(parent[sample])
        return sample

    _, first_of_row, row = np.unique(rows, return_index=True, return_inverse=True)
    _, first_of_question, question = np.unique(questions, return_index=True, return_inverse=True)
    links = np.concatenate(
        [
            np.stack([np.arange(len(rows)), first_of_row[row]], 1),
            np.stack([asked_by, asked_by[first_of_question[question]]], 1),
        ]
    )
    # Most samples are alone in their row and with their question.
    for one, other in links[links[:, 0] != links[:, 1]]:
        low, high = sorted((root(int(one)), root(int(other))))
        parent[high] = low
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return parent


def split(groups: Array, fraction: float, seed: int) -> Array:
    """A mask that holds out a share of the samples; at least one where the share is not 0.

    Groups go the same way as a whole. They are drawn until the share is reached, those that are larger than
    what is still wanted only at the end: the smallest of them, unless it is more than the whole share again.

    Args:
        groups: equal numbers for samples that belong together.
        fraction: the share.
        seed: of the drawing.

    Raises:
        TunebuildError: all samples belong together, so that none would be left to train on.
    """
    out = np.zeros(len(groups), bool)
    if not fraction or not len(groups):
        return out
    wanted = max(1, round(len(groups) * fraction))
    members = _Groups(groups)
    larger: dict[int, Array] = {}
    held = 0
    for drawn in random.Random(seed).sample(range(len(groups)), len(groups)):  # noqa: S311 - not for secrets
        if held >= wanted:
            return out
        if out[drawn] or int(groups[drawn]) in larger:
            continue
        group = members.of(drawn)
        if len(group) > wanted - held:
            larger[int(groups[drawn])] = group
            continue
        held += len(group)
        out[group] = True
    smallest = min(larger.values(), key=len, default=np.zeros(0, np.int64))
    if held < wanted and len(smallest) and (not held or held + len(smallest) <= 2 * wanted):
        if len(smallest) == len(groups) > 1:
            raise fail(
                "one-group",
                f"all {len(groups):,} rows are linked by questions that they have in common, "
                "so what is held out would also be trained on",
                "choose rows yourself with data.eval.files, or leave data.eval out",
                path="data.eval.fraction",
            )
        out[smallest] = True
    return out


class _Groups:
    """Which samples share a number."""

    def __init__(self, numbers: Array) -> None:
        self._numbers = numbers
        self._order = np.argsort(numbers, kind="stable")
        self._sorted = numbers[self._order]

    def of(self, sample: int) -> Array:
        """The samples with the number of this one."""
        number = self._numbers[sample]
        low, high = (np.searchsorted(self._sorted, number, side) for side in ("left", "right"))
        return self._order[low:high]


def weigh(weights: Array, seed: int) -> Array:
    """How often to train on each: the whole part of its weight, and once more with the chance of the rest."""
    whole = weights.astype(np.int32)
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    for index in np.flatnonzero(weights > whole):
        whole[index] += chance.random() < weights[index] - whole[index]
    return whole


def _refuse_leaks(columns: Columns, leaks_to: Array, *, nearly: str) -> None:
    leaks = np.flatnonzero(leaks_to >= 0)
    if not len(leaks):
        return
    pairs = [f"{columns.name(i)} asks {nearly}what {columns.name(leaks_to[i])} asks" for i in leaks[:10]]
    raise fail(
        "leak",
        f"{len(leaks)} training rows are also held out: the evaluation would measure memorized answers"
        f"{listed(pairs, len(leaks))}",
        "take them out of one of the files, or say data.eval.on_leak: drop",
        path="data.eval.files",
    )
