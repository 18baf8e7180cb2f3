"""``merge.strategy: auto`` where the merge that is closer as a rule is not: 4 bits forget next to nothing."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, save_file

from support.models import save_base
from support.rows import PAIRS
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.plan.make import make_plan
from tunebuild.build.run import measured
from tunebuild.evaluate.stage import closer_strategy
from tunebuild.spec import load_spec
from tunebuild.store import Silent, Store

SPEC = """\
apiVersion: tunebuild/v1
name: coarse
data: {train: [{path: rows.jsonl, format: qa}]}
model: {base: ./base}
prompt: {template: chatml}
tuning: {method: qlora, lora: {r: 4}, epochs: 2, batch_size: 5, learning_rate: 5e-3, compute_dtype: float32}
evaluation: {samples: 0}
"""


def save_coarse(directory, little):
    """A base in bfloat16 whose layers' weights are -a, 0 and a: NF4 and bfloat16 both hold those exactly.

    But one matrix has ``little`` for 0, which 4 bits take for 0.
    """
    save_base("llama", directory, dtype=torch.bfloat16)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    for name in [n for n in tensors if "_proj" in n]:
        weight = tensors[name]
        # No block of 64 without its largest value, or it would have a scale of its own.
        ternary = torch.where(weight.abs() > weight.abs().mean(), weight.sign(), 0).to(weight.dtype)
        assert bool((ternary.view(-1, 64).abs().amax(1) == 1).all())
        tensors[name] = ternary / 8
        if name.endswith("layers.1.mlp.down_proj.weight"):
            tensors[name] += little * (ternary == 0)
    save_file(tensors, file, {"format": "pt"})


def coarse(directory, little):
    """A pipeline with that base."""
    save_coarse(directory / "base", little)
    rows = (json.dumps({"question": q, "answer": a}) for q, a in PAIRS)
    (directory / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows))
    (directory / "spec.yaml").write_text(SPEC)
    return Pipeline(load_spec(directory / "spec.yaml"), Store(directory / "store"))


def test_the_closer_merge_is_made_and_measured_and_the_plan_knows(tmp_path):
    began, said = [], []

    class Noted(Silent):
        def say(self, text):
            said.append(text)

    def reporter(stage):
        began.append(stage)
        return Noted()

    # What 4 bits forget is as little as what rounding adds to every weight, so one way or the other it helps.
    for little in (2e-4, -2e-4, 1e-4, -1e-4, 5e-5, -5e-5, 2e-5, -2e-5):
        pipeline = coarse(tmp_path / str(little), little)
        began.clear()
        said.clear()
        records = measured(pipeline, reporter)
        if "original is closer to the trained model" in said:
            break
    assert pipeline.strategies == ("dequantized", "original")
    assert "original is closer to the trained model" in said
    assert began == ["numbers", "data", "train", "merge", "evaluate", "merge", "merge", "evaluate"]
    first = pipeline.evaluate(records.data, records.train, pipeline.store.find(pipeline.merge(records.train)))
    strategies = json.loads(pipeline.store.find(first).path("metrics.json").read_text())["strategies"]
    assert strategies["original"] < strategies["dequantized"]
    assert json.loads(records.merge.path("merge.json").read_text())["strategy"] == "original"
    assert json.loads(records.evaluate.path("metrics.json").read_text())["strategy"] == "original"
    assert closer_strategy(records.evaluate) == "original"

    plan = make_plan(pipeline, tmp_path / "none.tar", lambda stage: Silent())
    status = {stage.name: stage.status for stage in plan.stages}
    assert [stage.name for stage in plan.stages].count("merge") == 1
    assert [status[name] for name in ("data", "train", "merge", "evaluate")] == ["unchanged"] * 4
    said.clear()
    assert measured(pipeline, reporter) == records
    assert said.count("unchanged") == 6
