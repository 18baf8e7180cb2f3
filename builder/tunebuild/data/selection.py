"""Which samples are trained on: duplicates, leaks, splits and weights, and whether too many were rejected."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunebuild.data.columns import Array, Columns, first_equal
from tunebuild.data.near import first_near, joined_labels
from tunebuild.data.rejects import Rejects
from tunebuild.errors import TunebuildError, fail
from tunebuild.grammar import counted, listed
from tunebuild.spec.data import DataSpec

# Codes of rejects whose cause is not in the rows: whose system turn it is, what to change, and how.
_SYSTEM = {
    "spec-system-refused": (
        "a system turn, which prompt.system puts before every row",
        "prompt.system",
        "leave it out, or choose a prompt.template that takes a system turn",
    ),
    "system-refused": (
        "the system turns of the rows",
        "prompt.template",
        "choose one that takes a system turn, or take these turns out of the rows",
    ),
}


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
    leaks_to = find_leaks(questions, unique & ~held, unique & held)
    if data.eval.on_leak == "error":
        _refuse_leaks(columns, leaks_to, nearly="nearly " if data.near else "")
    left = np.flatnonzero(unique & ~held & (leaks_to < 0))
    rows = columns.source[left].astype(np.int64) << 40 | columns.line[left]
    held[left[split(questions[left], rows, data.eval.fraction, seed)]] = True
    times = np.zeros(len(columns), np.int32)
    trained = left[~held[left]]
    times[trained] = weigh(np.array(weights)[columns.source[trained]], seed)
    return Selection(times, held, duplicate_of, leaks_to, (duplicate_of >= 0) & ~exact)


def check_rejects(kept: int, rejects: Rejects, max_rejected: float) -> None:
    """Stop the build where too many rows were rejected, or none is left.

    Raises:
        TunebuildError: with the first rejects, one a line.
    """
    total = kept + rejects.bad
    if not total:
        raise no_rows(rejects)
    share = rejects.bad / total
    if kept and share <= max_rejected:
        return
    _refuse_system(rejects, total)
    raise fail(
        "rejected",
        f"{rejects.bad} of {counted(total, 'row')} cannot be used ({share:.1%}, "
        f"at most {max_rejected:.1%} may be rejected){listed(rejects.first_bad, rejects.bad)}",
        f"mend the rows, {'raise tuning.max_length, ' if rejects.counts['answer-too-long'] else ''}"
        "or raise data.max_rejected",
        path="data.max_rejected",
    )


def no_rows(rejects: Rejects) -> TunebuildError:
    """There is nothing to train on: why not, and what to do where length is a reason."""
    why = ", ".join(f"{count:,} {code}" for code, count in sorted(rejects.counts.items()))
    message = f"no training row is left: {why}" if why else "there are no training rows"
    hint = "raise tuning.max_length" if rejects.counts["too-long"] else ""
    return fail("no-rows", message, hint, path="data.train")


def _refuse_system(rejects: Rejects, total: int) -> None:
    """Say it once where a template that takes no system turn is why most of the rejects are."""
    for code, (whose, path, hint) in _SYSTEM.items():
        count = rejects.counts[code]
        shown = next((reject for reject in rejects.first_bad if reject.code == code), None)
        if shown and 2 * count > rejects.bad:
            others = [reject for reject in rejects.first_bad if reject.code != code]
            raise fail(
                "system-refused",
                f"the template does not take {whose}, so {count} of {counted(total, 'row')} cannot be used: "
                f"{shown.reason}{listed(others, rejects.bad - count)}",
                hint,
                path=path,
            )


def find_leaks(questions: Array, train: Array, held: Array) -> Array:
    """For each sample of ``train`` one of ``held`` that asks the same, else -1.

    Args:
        questions: equal numbers below the number of samples for equal questions.
        train, held: masks.
    """
    asked = np.full(len(questions), -1)
    asked[questions[held]] = np.flatnonzero(held)
    return np.where(train, asked[questions], -1)


def split(questions: Array, rows: Array, fraction: float, seed: int) -> Array:
    """A mask that holds out a share of the samples; at least one where the share is not 0.

    Samples that ask the same, and samples of one row, go the same way. Such groups are drawn until the share
    is reached, so it is exceeded by less than one of them.

    Args:
        questions, rows: equal numbers for equal questions, for samples of one row.
    """
    out = np.zeros(len(rows), bool)
    if not fraction or not len(rows):
        return out
    count = max(1, round(len(rows) * fraction))
    of_row, of_question = _Groups(rows), _Groups(questions)
    held = 0
    for drawn in random.Random(seed).sample(range(len(rows)), len(rows)):  # noqa: S311 - not for secrets
        if held >= count:
            break
        if out[drawn]:
            continue
        group = np.unique(np.concatenate([of_question.of(sample) for sample in of_row.of(drawn)]))
        held += int((~out[group]).sum())
        out[group] = True
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
        f"{len(leaks)} training rows are also held out, so what is measured would be what was learnt"
        f"{listed(pairs, len(leaks))}",
        "take them out of one of the files, or say data.eval.on_leak: drop",
        path="data.eval.files",
    )
