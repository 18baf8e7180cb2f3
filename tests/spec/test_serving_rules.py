"""Which engine serves, and what it is not asked for."""

from __future__ import annotations

import pytest

from tunebuild.errors import TunebuildError
from tunebuild.spec import load_spec
from tunebuild.spec.serving_rules import engine_of, engine_reason


def load(tmp_path, text, *overrides):
    (tmp_path / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    (tmp_path / "base").mkdir(exist_ok=True)
    (tmp_path / "base" / "config.json").write_text("{}")
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "apiVersion: tunebuild/v1\nname: x\ndata: {train: [{path: rows.jsonl, format: qa}]}\n"
        f"model: {{base: ./base}}\nprompt: {{template: chatml}}\n{text}"
    )
    return load_spec(spec, overrides).spec


@pytest.mark.parametrize(
    ("text", "engine"),
    [
        ("", "transformers"),
        ("serving: {device: cuda}\n", "vllm"),
        ("serving: {device: cuda, engine: transformers}\n", "transformers"),
        ("serving: {device: cpu, engine: vllm}\n", "vllm"),
        ("serving: {device: cuda}\nmerge: {strategy: none}\n", "vllm"),
        # DoRA that is merged is in the weights, which vLLM serves like any.
        ("serving: {device: cuda}\ntuning: {lora: {dora: true}}\n", "vllm"),
        ("serving: {device: cuda}\nmerge: {strategy: none}\ntuning: {lora: {dora: true}}\n", "transformers"),
        ("serving: {device: cuda, dtype: float32}\n", "vllm"),
        ("serving: {device: cuda, dtype: float32}\nmerge: {strategy: none}\n", "transformers"),
        ("serving: {device: cuda}\ntuning: {method: peft, peft: {type: ia3}}\n", "transformers"),
    ],
)
def test_auto_is_decided_by_device_and_adapter(tmp_path, text, engine):
    spec = load(tmp_path, text)
    assert engine_of(spec) == engine
    assert bool(engine_reason(spec)) is (spec.serving.engine == "auto")


@pytest.mark.parametrize(
    ("tuning", "path", "words"),
    [
        ("{lora: {dora: true}}", "tuning.lora.dora", "DoRA"),
        ("{lora: {r: 513}}", "tuning.lora.r", "rank 512, not 513"),
        ("{method: lora, lora: {r: 300, init: pissa}}", "tuning.lora.r", "rank 512, not 600"),
        ("{lora: {targets: [q_proj, lm_head]}}", "tuning.lora.targets", "lm_head"),
        ("{lora: {targets: [model.embed_tokens]}}", "tuning.lora.targets", "embed_tokens"),
    ],
)
def test_what_vllm_refuses_is_refused_before_training(tmp_path, tuning, path, words):
    text = f"serving: {{engine: vllm}}\nmerge: {{strategy: none}}\ntuning: {tuning}\n"
    with pytest.raises(TunebuildError) as caught:
        load(tmp_path, text)
    found = [d for d in caught.value.diagnostics if d.code == "vllm-refuses"]
    assert [d.path for d in found] == [path]
    assert words in found[0].message
    load(tmp_path, text, "merge.strategy=auto")  # merged, it is in the weights
    load(tmp_path, text, "serving.engine=transformers")


def test_an_adapter_of_another_family_is_refused_for_vllm(tmp_path):
    with pytest.raises(TunebuildError, match="no adapter of the kind prefix_tuning"):
        load(tmp_path, "serving: {engine: vllm}\ntuning: {method: peft, peft: {type: prefix_tuning}}\n")


def test_ranks_in_reach_are_taken(tmp_path):
    load(tmp_path, "serving: {engine: vllm}\nmerge: {strategy: none}\ntuning: {lora: {r: 512}}\n")


def test_vllm_on_an_arm_cpu_is_refused(tmp_path):
    with pytest.raises(TunebuildError, match="only there for linux/amd64"):
        load(tmp_path, "serving: {engine: vllm}\nimage: {platform: linux/arm64}\n")
    load(tmp_path, "serving: {device: cuda}\nimage: {platform: linux/arm64}\n")


def test_an_adapter_of_new_tokens_goes_nowhere_without_its_base(tmp_path):
    new = "prompt.new_tokens=['<|new|>']"
    apart = "merge: {strategy: none}\n"
    load(tmp_path, "serving: {engine: vllm}\n", new)
    load(tmp_path, apart, new)
    with pytest.raises(TunebuildError, match="trained rows of an embedding"):
        load(tmp_path, f"serving: {{engine: vllm}}\n{apart}", new)
    with pytest.raises(TunebuildError, match=r"publish the weights: outputs: \[image, weights\]"):
        load(tmp_path, "outputs: [image, adapter]\n", new)
    load(tmp_path, "outputs: [image, weights]\n", new)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tuning: {method: peft, peft: {type: ia3}}\n", "use lora or qlora"),
        ("tuning: {method: lora, shard: true, processes: 2}\n", "leave out tuning.shard"),
    ],
)
def test_new_tokens_need_an_adapter_that_trains_their_rows(tmp_path, text, words):
    with pytest.raises(TunebuildError, match=words):
        load(tmp_path, text, "prompt.new_tokens=['<|new|>']")
    with pytest.raises(TunebuildError, match="is there twice"):
        load(tmp_path, "", "prompt.new_tokens=['<|new|>', '<|new|>']")
