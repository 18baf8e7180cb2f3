"""What follows from a spec's figures for a number of rows."""

import pytest

from tunebuild.spec.tuning import TuningSpec
from tunebuild.train.plan.settings import TrainSettings


@pytest.mark.parametrize(("rows", "ratio", "expected"), [(100, 0.1, 4), (1000, 0.0, 0), (8, 0.5, 2)])
def test_warmup_may_be_a_share_of_all_steps(rows, ratio, expected):
    tuning = TuningSpec(batch_size=8, epochs=3, warmup_ratio=ratio)
    assert TrainSettings(tuning, "cpu", "float32").warmup_steps(rows) == expected


@pytest.mark.parametrize(
    ("rows", "wanted", "expected"),
    [(4, None, 0), (100, None, 3), (1000, None, 10), (4, 5, 5), (1000, 0, 0)],
)
def test_warmup_is_a_tenth_of_a_short_run_unless_set(rows, wanted, expected):
    tuning = TuningSpec(batch_size=8, epochs=3, warmup_steps=wanted)
    assert TrainSettings(tuning, "cpu", "float32").warmup_steps(rows) == expected
