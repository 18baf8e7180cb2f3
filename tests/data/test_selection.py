"""Splits are seeded and complete, nothing leaks, weights are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunebuild.data.columns import first_equal
from tunebuild.data.likeness import fold
from tunebuild.data.selection import belonging_together, find_leaks, split, weigh
from tunebuild.errors import TunebuildError

ALONE = np.arange(50)


def test_split_is_seeded():
    held = split(ALONE, 0.2, seed=1)
    assert held.sum() == 10
    assert (held == split(ALONE, 0.2, seed=1)).all()
    assert (held != split(ALONE, 0.2, seed=2)).any()
    assert not split(ALONE, 0.0, seed=1).any()
    assert split(ALONE[:3], 0.01, seed=1).sum() == 1


@pytest.mark.parametrize("alike", ["questions", "rows"])
def test_samples_that_belong_together_are_held_out_together(alike):
    pairs = ALONE // 2
    groups = belonging_together(**{"questions": ALONE, "rows": ALONE, alike: pairs}, asked_by=ALONE)
    held = split(groups, fraction=0.3, seed=3)
    assert (held[0::2] == held[1::2]).all()
    assert 15 <= held.sum() <= 16


def test_a_share_is_not_exceeded_by_more_than_a_group():
    fives = np.arange(320) // 5  # as a question and four more spellings of it
    for fraction in (0.01, 0.05, 0.1, 0.5):
        held = split(fives, fraction, seed=0).sum()
        assert 320 * fraction <= held < 320 * fraction + 5


def test_a_large_group_is_trained_on_while_smaller_ones_reach_the_share():
    groups = np.array([0] * 80 + [*range(1, 21)])  # four rows of five begin with the same greeting
    for seed in range(20):
        held = split(groups, 0.1, seed)
        assert held.sum() == 10
        assert not held[:80].any()


def test_rows_that_are_all_linked_cannot_be_split():
    with pytest.raises(TunebuildError, match="linked by questions") as caught:
        split(np.zeros(9, int), 0.2, seed=0)
    assert caught.value.diagnostics[0].path == "data.eval.fraction"


@given(
    st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4), min_size=2, max_size=30),
    st.floats(0.05, 0.6),
    st.integers(0, 9),
)
def test_no_question_is_on_both_sides_of_a_split(asked, fraction, seed):
    asked_by = np.repeat(np.arange(len(asked)), [len(questions) for questions in asked])
    flat = np.array([question for questions in asked for question in questions])
    groups = belonging_together(np.arange(len(asked)) // 2, first_of(flat), asked_by)
    try:
        held = split(groups, fraction, seed)
    except TunebuildError:
        assert len(set(groups.tolist())) == 1
        return
    assert held.any()
    sides = [
        {q for row, h in zip(asked, held, strict=True) if h == side for q in row} for side in (True, False)
    ]
    assert not sides[0] & sides[1]
    assert not set(np.flatnonzero(held) // 2) & set(np.flatnonzero(~held) // 2)
    assert (find_leaks(first_of(flat), asked_by, ~held, held) == -1).all()


def first_of(numbers):
    listed = numbers.tolist()
    return np.array([listed.index(n) for n in listed])


def test_what_is_held_out_is_found_in_training():
    questions = np.array([0, 1, 1, 3, 0])
    train = np.array([True, True, True, True, False])
    assert find_leaks(questions, np.arange(5), train, ~train).tolist() == [4, -1, -1, -1, -1]


def test_each_question_of_a_sample_is_looked_for():
    # Samples ask: (0, 1), (2,), (1, 3), (2, 4); the last two are held out.
    questions, asked_by = np.array([0, 1, 2, 1, 4, 2, 6]), np.array([0, 0, 1, 2, 2, 3, 3])
    held = np.array([False, False, True, True])
    assert find_leaks(questions, asked_by, ~held, held).tolist() == [2, 3, -1, -1]


@pytest.mark.parametrize(
    ("weight", "low", "high"), [(1.0, 400, 400), (2.0, 800, 800), (0.5, 160, 240), (1.25, 460, 540)]
)
def test_weights_repeat_rows_or_draw_from_them(weight, low, high):
    times = weigh(np.full(400, weight), seed=0)
    assert low <= times.sum() <= high
    assert set(times) <= {int(weight), int(np.ceil(weight))}
    assert (times == weigh(np.full(400, weight), seed=0)).all()


@given(st.lists(st.integers(0, 5), max_size=40))
def test_the_first_that_is_equal_is_found(numbers):
    digests = np.array([[n, n % 2] for n in numbers], np.uint64).reshape(-1, 2)
    assert first_equal(digests).tolist() == [numbers.index(n) for n in numbers]


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_letters_fold_as_all_letters_do(text):
    # A character beyond ASCII sends the text the long way; it folds to itself.
    assert fold(text + " é").removesuffix("é").strip() in (fold(text).strip(), "") or not text.strip()
    assert fold(fold(text)) == fold(text)
