"""Each architecture of docs/models.md is trained, merged, proven, evaluated and served, and all agree."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch

from support.bases import CONFIGS, save_published, stored
from support.models import save_base
from support.rows import PAIRS
from tunebuild import resources
from tunebuild.build.checks import check_base
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.run import measured
from tunebuild.evaluate.generate import generate
from tunebuild.prompt import load_prompt
from tunebuild.prompt.golden import load_golden
from tunebuild.serve.engines.base import EngineSetup
from tunebuild.serve.engines.generation import Generation
from tunebuild.serve.engines.model import load_model
from tunebuild.serve.engines.request import Request, Sampling
from tunebuild.serve.engines.transformers import TransformersEngine
from tunebuild.spec import load_spec
from tunebuild.store import Silent, Store

SPEC = """\
apiVersion: tunebuild/v1
name: tiny
data: {train: [{path: rows.jsonl, format: qa}]}
model: {base: ./base}
prompt: {template: chatml}
tuning: {method: lora, lora: {r: 4}, epochs: 2, batch_size: 5, learning_rate: 1e-2, compute_dtype: float32}
evaluation: {samples: 1}
"""


@pytest.mark.parametrize("name", CONFIGS)
def test_architecture_goes_the_whole_way(name, tmp_path, record_property):
    record_property("architecture", name)
    base = save_published(name, tmp_path / "base")
    rows = (json.dumps({"question": q, "answer": a}) for q, a in PAIRS)
    (tmp_path / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows))
    (tmp_path / "spec.yaml").write_text(SPEC)
    pipeline = Pipeline(load_spec(tmp_path / "spec.yaml"), Store(tmp_path / "store"))
    check_base(pipeline, lambda stage: Silent())
    record_property("stages", "plan")
    records = measured(pipeline, lambda stage: Silent())
    adapter = stored(records.train.root / "adapter")
    assert any(bool(tensor.any()) for key, tensor in adapter.items() if "lora_B" in key)
    assert not any("vision" in key or "visual" in key or "multi_modal" in key for key in adapter)
    record_property("stages", "plan train")
    before, after = stored(base), stored(records.merge.root / "model")
    assert before.keys() == after.keys()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved
    assert not any("vision" in key or "visual" in key for key in moved)
    record_property("stages", "plan train merge")
    record = json.loads(records.evaluate.path("metrics.json").read_text())
    assert record["proof"]["updated"] == len(moved)
    record_property("stages", "plan train merge proof")
    assert record["metrics"]["merge_kl"] < 1e-5
    record_property("stages", "plan train merge proof evaluate")
    _served_as_evaluated(records.merge.root / "model")
    record_property("stages", "plan train merge proof evaluate serve")


@pytest.mark.parametrize(
    ("architecture", "method", "targets", "token"),
    [("llama", "qlora", "all-linear", "<|turn|>"), ("falcon", "lora", "[query_key_value, lm_head]", "")],
    ids=["new-token", "tied-head"],
)
def test_embedding_and_head_go_the_whole_way(architecture, method, targets, token, tmp_path):
    base = save_base(architecture, tmp_path / "base")
    rows = (json.dumps({"question": q, "answer": a}) for q, a in PAIRS)
    (tmp_path / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows))
    template = (resources.path("templates", "prompts") / "chatml.jinja").read_text()
    (tmp_path / "prompt.jinja").write_text(template.replace("<|im_start|>", token or "<|im_start|>"))
    spec = SPEC.replace("method: lora, lora: {r: 4}", f"method: {method}, lora: {{r: 4, targets: {targets}}}")
    spec = spec.replace("template: chatml", f"template: {{file: prompt.jinja}}, new_tokens: ['{token}']")
    (tmp_path / "spec.yaml").write_text(spec.replace("['']", "[]"))
    pipeline = Pipeline(load_spec(tmp_path / "spec.yaml"), Store(tmp_path / "store"))
    check_base(pipeline, lambda stage: Silent())
    records = measured(pipeline, lambda stage: Silent())
    record = json.loads(records.evaluate.path("metrics.json").read_text())
    assert record["metrics"]["merge_kl"] < 1e-4
    assert record["proof"]["rows"] == bool(token)
    model = records.merge.root / "model"
    ends = [name for name, tensor in stored(base).items() if not torch.equal(tensor, stored(model)[name])]
    assert any("embed" in name for name in ends), "the one tensor of embedding and head was not trained"
    _served_as_evaluated(model)
    if not token:
        return
    renderer = load_prompt(records.data.path("prompt"))
    number = renderer.tokenizer.token_id(token)
    asked = renderer.prompt_ids([{"role": "user", "content": f"What is {token} for?"}])
    assert asked.count(number) == 2  # of the user's turn and of the answer's, not of what was typed
    golden = {vector.name: vector.ids for vector in load_golden(records.data.path("prompt", "golden.json"))}
    assert golden[f"literal-{token}"] == asked


def _served_as_evaluated(model):
    """The engine answers several prompts at a time as the model does each alone, without a cache."""
    prompts = [list(range(20, 20 + length)) for length in (5, 17, 40)]
    loaded = load_model(model, None, torch.float32)
    expected = []
    for prompt in prompts:
        ids = list(prompt)
        with torch.inference_mode():
            for _ in range(8):
                ids.append(int(loaded(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        expected.append(ids[len(prompt) :])
    assert generate(loaded, prompts, 8, ()) == expected
    assert asyncio.run(_ask(model, prompts)) == expected


async def _ask(model, prompts):
    setup = EngineSetup(model, None, "", model / "tokenizer.json", "cpu", "float32", 200, 3)
    engine = TransformersEngine(setup)
    engine.start()
    try:
        running = [Generation(Request(prompt, 8, frozenset(), Sampling(temperature=0))) for prompt in prompts]
        for one in running:
            engine.submit(one)
        return [[token.id async for token in one] for one in running]
    finally:
        engine.stop()
