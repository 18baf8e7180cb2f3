"""An endpoint is ready only if its engine reproduces what the build measured; each fault prevents that."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.tuned import make_adapter, make_tuned, perturb, seal
from tunebuild.evaluate.parity import choose_parity
from tunebuild.evaluate.texts import Question
from tunebuild.serve.bundle import PARITY_FILE, Bundle
from tunebuild.serve.engines.factory import make_engine
from tunebuild.serve.parity import TOLERANCE, compare
from tunebuild.serve.service import Service

IGNORED = -100


# --- the measure itself ---

LOGPROBS = st.lists(st.tuples(st.floats(-8, -0.01), st.floats(-8, -0.01)), min_size=20, max_size=60)


@pytest.mark.quick
@given(LOGPROBS, st.floats(0, 0.004))
def test_the_model_that_was_built_passes(pairs, noise):
    tuned, base = [a for a, _ in pairs], [b for _, b in pairs]
    served = [x + noise * (-1) ** n for n, x in enumerate(tuned)]
    verdict = compare(served, tuned, base, TOLERANCE["float32"])
    assert not verdict.problem or (verdict.share is not None and verdict.share != pytest.approx(1, abs=0.25))


@pytest.mark.quick
@given(LOGPROBS.filter(lambda pairs: sum(abs(a - b) for a, b in pairs) / len(pairs) > 0.05))
def test_the_base_never_passes(pairs):
    tuned, base = [a for a, _ in pairs], [b for _, b in pairs]
    verdict = compare(base, tuned, base, TOLERANCE["bfloat16"])
    assert verdict.share == pytest.approx(0, abs=1e-6)
    assert "answers as the base does" in verdict.problem


@pytest.mark.parametrize("strength", [-1.0, 0.0, 0.5, 2.0])
def test_an_adapter_of_another_strength_is_found_below_the_tolerance(strength):
    torch.manual_seed(0)
    base = -3 * torch.rand(200)
    tuned = base + 0.05 * torch.randn(200)  # light: a mean distance well within what rounding may do
    rounding = 0.01 * torch.randn(200)
    for factor, right in ((1.0, True), (strength, False)):
        served = base + factor * (tuned - base) + rounding
        verdict = compare(served.tolist(), tuned.tolist(), base.tolist(), TOLERANCE["bfloat16"])
        assert verdict.distance < verdict.tolerance
        assert (not verdict.problem) is right, verdict


def test_a_fine_tune_without_effect_is_held_to_the_distance_alone():
    same = [-1.0, -2.0]
    assert compare(same, same, same, 0.01).share is None
    assert not compare(same, same, same, 0.01).problem
    assert "other weights" in compare([-1.5, -2.0], same, same, 0.01).problem


def test_a_value_that_is_no_number_does_not_pass():
    assert "not a number" in compare([float("nan")], [-1.0], [-2.0], 1.0).problem


# --- what the build stores ---


def test_stored_rows_hold_the_log_probabilities_of_their_own_tokens():
    vocabulary, rows = 7, []
    for length in (5, 3, 9):
        ids = [(3 * n + length) % vocabulary for n in range(length)]
        rows.append({"input_ids": ids, "labels": [IGNORED, *ids[1:-1], IGNORED]})
    positions = sum(len(row["input_ids"]) - 2 for row in rows)
    tuned = torch.arange(positions * vocabulary).reshape(positions, vocabulary).float()
    found = choose_parity("float32", rows, tuned, -tuned, [Question([1, 2], [3], 0)], [[4] * 30], 64)
    at = 0
    for stored, row in zip(found.rows, rows, strict=True):
        for place, value, under_base in zip(stored.at, stored.tuned, stored.base, strict=True):
            assert value == tuned[at, row["input_ids"][place]] == -under_base
            at += 1
    assert at == positions
    assert found.answers[0].answer == [4] * found.answers[0].max_tokens


# --- the endpoint ---


@pytest.fixture(scope="module", params=["merged", "apart"])
def built(request, tmp_path_factory):
    """A bundle whose fine-tuning is in the weights, or an adapter beside them; and its base."""
    bundle = tmp_path_factory.mktemp("built") / "bundle"
    make_tuned(bundle, merged=request.param == "merged")
    return bundle


def started(bundle: Path, **setup: object) -> str:
    """The reason why it is not ready, empty if it is."""

    async def wait() -> str:
        settings = Bundle.load(bundle)
        running = make_engine(settings.engine, replace(settings.engine_setup(bundle), **setup))
        service = Service(bundle, settings, running)
        service.start()
        limit = time.monotonic() + 240
        while service.not_ready() == "loading" and time.monotonic() < limit:
            await asyncio.sleep(0.05)
        found = service.not_ready()
        await asyncio.to_thread(service.stop)
        return found

    return asyncio.run(wait())


@pytest.fixture
def copy(built, tmp_path):
    shutil.copytree(built, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_the_model_that_was_built_becomes_ready(copy):
    reason = started(copy)
    assert reason == ""


def test_without_the_fine_tuning_it_is_not_ready(copy, built):
    if (copy / "adapter").is_dir():
        perturb(copy / "adapter" / "adapter_model.safetensors", 0)
        seal(copy)
    else:
        shutil.rmtree(copy / "model")
        shutil.copytree(built.parent / "base", copy / "model")
    reason = started(copy)
    assert "answers as the base does" in reason


def test_with_other_weights_it_is_not_ready(copy):
    perturb(copy / "model" / "model.safetensors", 0.05)
    reason = started(copy)
    assert "held-out tokens" in reason


def test_in_another_precision_it_is_not_ready(copy):
    reason = started(copy, dtype="bfloat16")
    assert "computes in bfloat16, not in float32" in reason


def test_with_another_builds_adapter_it_is_not_ready(copy, built, tmp_path):
    if not (copy / "adapter").is_dir():
        pytest.skip("no adapter is apart")
    shutil.rmtree(copy / "adapter")
    make_adapter(built.parent / "base", copy / "adapter", 2)
    reason = started(copy)
    assert reason.startswith("the adapter is sha256:")  # by its name
    seal(copy)
    reason = started(copy)
    assert "held-out tokens" in reason  # by what it does


def test_an_engine_that_leaves_the_adapter_out_is_not_ready(copy):
    if not (copy / "adapter").is_dir():
        pytest.skip("no adapter is apart")
    reason = started(copy, adapter=None)
    assert "answers as the base does" in reason


def test_another_answer_is_found_where_the_log_probabilities_agree(copy):
    parity = json.loads((copy / PARITY_FILE).read_text())
    stored = parity["answers"][0]["answer"]
    assert stored, "the model answers nothing, and the test would show nothing"
    stored[0] = stored[0] + 1 if stored[0] < 300 else 20
    (copy / PARITY_FILE).write_text(json.dumps(parity))
    seal(copy)
    reason = started(copy)
    assert "does not give the build's answer" in reason


def test_parity_of_another_build_is_refused(copy):
    (copy / PARITY_FILE).write_text((copy / PARITY_FILE).read_text() + " ")
    reason = started(copy)
    assert "not that of this build" in reason
    (copy / PARITY_FILE).unlink()
    assert started(copy)
