"""An adapter beside its base answers as PEFT does, and one that does not belong there does not start."""

from __future__ import annotations

import asyncio

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

from support.models import save_base
from tunebuild.errors import TunebuildError
from tunebuild.serve.engines.base import EngineSetup
from tunebuild.serve.engines.generation import Generation
from tunebuild.serve.engines.request import Request, Sampling
from tunebuild.serve.engines.transformers import TransformersEngine

LORA = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear"}
KINDS = {
    "lora": lambda: LoraConfig(task_type="CAUSAL_LM", **LORA),
    "dora-and-norms": lambda: LoraConfig(
        task_type="CAUSAL_LM", use_dora=True, modules_to_save=["norm"], **LORA
    ),
    "head": lambda: LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["lm_head", "q_proj"]),
    "ia3": lambda: IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "prefix-tuning": lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "prompt-tuning": lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
}
PROMPTS = [[5 + n, *range(20, 20 + n % 7)] for n in range(8)]
STOPS = frozenset((1, 2))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base("llama", tmp_path_factory.mktemp("adapters") / "base", tie_word_embeddings=False)


def make_adapter(base, directory, config):
    """An adapter that says something: none of its values is at its start."""
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(directory)
    return directory


def by_peft(base, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    options = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=sorted(STOPS), pad_token_id=1)
    answers = []
    for prompt in PROMPTS:
        made = model.generate(input_ids=torch.tensor([prompt]), generation_config=options)
        answers.append([t for t in made[0, len(prompt) :].tolist() if t not in STOPS])
    return answers


def setup(base, adapter, concurrency):
    return EngineSetup(base, adapter, "one", base / "tokenizer.json", "cpu", "float32", 200, concurrency)


def by_engine(base, adapter):
    """All prompts at once; more of them than rows of the batch, so that some join later."""
    engine = TransformersEngine(setup(base, adapter, 5))
    engine.start()

    async def ask():
        running = [Generation(Request(p, 12, STOPS, Sampling())) for p in PROMPTS]
        for one in running:
            engine.submit(one)
        return [[token.id async for token in one] for one in running]

    try:
        return asyncio.run(ask())
    finally:
        engine.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_answers_as_peft_does(base, tmp_path, kind):
    adapter = make_adapter(base, tmp_path / "adapter", KINDS[kind]())
    expected = by_peft(base, adapter)
    assert expected != by_peft(base), "the adapter should say something else than its base"
    assert by_engine(base, adapter) == expected


def started(base, adapter):
    with pytest.raises(TunebuildError) as caught:
        TransformersEngine(setup(base, adapter, 1)).start()
    return caught.value.diagnostics[0]


def test_what_is_not_whole_or_not_of_this_base_does_not_start(base, tmp_path):
    adapter = make_adapter(base, tmp_path / "adapter", KINDS["lora"]())
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = min(tensors)
    save_file({n: t for n, t in tensors.items() if n != first}, weights)
    assert f"lacks {first}" in started(base, adapter).message
    save_file({**tensors, "base_model.model.more.weight": torch.zeros(1)}, weights)
    assert "more.weight" in started(base, adapter).message
    save_file(tensors, weights)
    other = save_base("llama", tmp_path / "other", hidden_size=128, tie_word_embeddings=False)
    assert "does not fit" in started(other, adapter).message
    weights.unlink()
    assert started(base, adapter).code == "adapter-incomplete"


TENSOR = "model.layers.0.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({TENSOR: None, "lm_head.weight": None}, "lacks the tensor lm_head.weight and 1 more"),
        ({"model.more": torch.zeros(2)}, "has a tensor that the model does not take: model.more"),
        ({TENSOR: torch.zeros(2, 3)}, f"has in another shape than the model the tensor {TENSOR}"),
    ],
)
def test_a_base_that_is_not_whole_does_not_start(tmp_path, change, said):
    broken = save_base("llama", tmp_path / "broken", tie_word_embeddings=False)
    weights = broken / "model.safetensors"
    tensors = {**load_file(weights), **change}
    save_file({n: t for n, t in tensors.items() if t is not None}, weights, {"format": "pt"})
    found = started(broken, None)
    assert (found.code, found.message) == ("model-incomplete", f"{broken} {said}")
    assert "build or export again" in found.hint
