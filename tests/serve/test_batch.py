"""Rows come and go, and each is given the logits that it would have alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.models import ARCHITECTURES
from tunebuild.serve.engines import _cache
from tunebuild.serve.engines.batch import Batch

VOCABULARY = 128
tokens = st.integers(0, VOCABULARY - 1)
#: Either prompts that join, or which of the rows leave and a token for each that stays.
events = st.lists(
    st.one_of(
        st.lists(st.lists(tokens, min_size=1, max_size=12), min_size=1, max_size=3),
        st.tuples(st.sets(st.integers(0, 8), max_size=2), tokens),
    ),
    min_size=2,
    max_size=9,
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    torch.manual_seed(1)
    return ARCHITECTURES[request.param](VOCABULARY).eval()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(_cache, "_ROOM", 2)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=events)
def test_logits_are_those_of_each_row_alone(model, small_blocks, history):
    batch, rows = Batch(model), []
    for event in history:
        if isinstance(event, list):
            logits = batch.join(event)
            rows += [list(prompt) for prompt in event]
            seen = rows[-len(event) :]
        else:
            leaving, token = event
            kept = [number for number in range(len(rows)) if number not in leaving]
            if len(kept) < len(rows):
                batch.keep(kept)
                rows = [rows[number] for number in kept]
            if not rows:
                continue
            made = [(token + 7 * number) % VOCABULARY for number in range(len(rows))]
            logits = batch.step(made)
            for row, one in zip(rows, made, strict=True):
                row.append(one)
            seen = rows
        assert len(batch) == len(rows)
        for row, found in zip(seen, logits, strict=True):
            with torch.inference_mode():
                alone = model(torch.tensor([row])).logits[0, -1].float()
            torch.testing.assert_close(found, alone, atol=2e-4, rtol=1e-3)


def test_a_step_writes_in_place(model):
    batch = Batch(model)
    batch.join([[1, 2, 3], [4, 5]])
    places = set()
    for token in range(2 * _cache._ROOM):
        batch.step([token % VOCABULARY] * 2)
        places.add(batch.cache.layers[0].keys.data_ptr())
    assert batch.cache.layers[0].keys.shape[2] == 3 + 2 * _cache._ROOM
    assert len(places) <= 3  # a new buffer each time the room is used up
