"""Every row is trained on once an epoch, in the step that the spec's batch size puts it into."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tunebuild.train.plan.batches import Batching, MicroBatches, share_of, spread

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 8))
def test_spread_keeps_every_row_and_balances(lengths, parts):
    groups = spread(lengths, parts)
    assert sorted(at for group in groups for at in group) == list(range(len(lengths)))
    sums = [sum(lengths[at] for at in group) for group in groups]
    # Graham's bound, against the best that any division could reach.
    best = max(max(lengths), -(-sum(lengths) // parts))
    assert max(sums) <= (4 / 3) * best + max(lengths) / 3
    assert len(lengths) < parts or all(groups)


@given(
    lengths=LENGTHS, rows=st.integers(1, 16), micro_batches=st.integers(1, 20), packed=st.booleans(),
    processes=st.integers(1, 3), seed=st.integers(0, 9), epoch=st.integers(0, 3),
)  # fmt: skip
def test_steps_hold_the_same_rows_for_any_micro_batches(
    lengths, rows, micro_batches, packed, processes, seed, epoch
):
    lengths = np.array(lengths)
    whole = MicroBatches(lengths, Batching(rows, 1, packed, seed))
    batching = Batching(rows, micro_batches, packed, seed, processes)
    shares = [MicroBatches(lengths, batching, number) for number in range(processes)]
    for one in (whole, *shares):
        one.set_epoch(epoch)
    steps = list(whole)
    assert len(steps) == len(whole) == whole.steps
    cut = [list(share) for share in shares]
    assert {len(share) for share in cut} == {len(shares[0])}  # no process waits for another
    usual = max(1, min(micro_batches, rows // processes))
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        start, end = number * usual, None if last else (number + 1) * usual
        mine = [row for share in cut for one in share[start:end] for row in one]
        assert all(one for share in cut for one in share[start:end])
        assert sorted(row for row in mine if row >= 0) == sorted(step)
        assert len([row for row in mine if row < 0]) == max(0, processes - len(step))


@given(st.lists(st.lists(st.integers(0, 99), min_size=1), min_size=1, max_size=9), st.integers(1, 5))
def test_processes_share_micro_batches_evenly(micro_batches, processes):
    shares = [share_of(micro_batches, number, processes) for number in range(processes)]
    assert {len(share) for share in shares} == {-(-len(micro_batches) // processes)}
    real = [one for share in shares for one in share if one[0] >= 0]
    assert sorted(real) == sorted(micro_batches)  # what else is done carries no loss
    assert all(row < 0 for share in shares for one in share if one[0] < 0 for row in one)


@given(LENGTHS, st.integers(1, 16), st.integers(1, 6), st.booleans(), st.integers(1, 3))
def test_sizes_are_those_of_the_micro_batches(lengths, rows, micro_batches, packed, processes):
    lengths = np.array(lengths)
    batching = Batching(rows, micro_batches, packed, 0, processes)
    turns = zip(*(MicroBatches(lengths, batching, number) for number in range(processes)), strict=True)
    held = [[max(row, ~row) for row in one] for turn in turns for one in turn]
    sizes = [sum(lengths[one]) if packed else len(one) * max(lengths[one]) for one in held]
    some = MicroBatches(lengths, batching)
    assert some.sizes(1000).tolist() == sizes
    assert some.longest() == max(sizes)


@given(LENGTHS, st.integers(1, 3000), st.booleans())
def test_a_micro_batch_of_a_size_is_full_and_holds_the_longest_row(lengths, tokens, packed):
    lengths = np.array(lengths)
    rows = MicroBatches(lengths, Batching(4, 1, packed, 0)).of_size(tokens)
    assert max(lengths[rows]) == max(lengths)
    size = sum(lengths[rows]) if packed else len(rows) * max(lengths)
    assert size <= tokens or len(rows) == 1
    if packed and len(rows) < len(lengths):
        assert size + max(np.delete(lengths, rows)) > tokens


@given(LENGTHS, st.integers(1, 16))
def test_rows_of_a_step_are_known(lengths, rows):
    some = MicroBatches(np.array(lengths), Batching(rows, 1, True, 0))
    for epoch in (0, 1):
        some.set_epoch(epoch)
        for number, step in enumerate(some):
            assert some.rows_of(epoch * some.steps + number) == sorted(step)


def test_epochs_differ_and_seeds_repeat():
    lengths = np.arange(1, 40)
    one, other = (MicroBatches(lengths, Batching(8, 2, True, 5)) for _ in range(2))
    assert list(one) == list(other)
    one.set_epoch(1)
    assert list(one) != list(other)
