"""What the training benchmarks share: models of real shapes with random weights, and rows of real lengths."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MixtralConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.mixtral.modeling_mixtral import MixtralRotaryEmbedding

from tunebuild.data.tokenized import write_examples
from tunebuild.prompt import Example
from tunebuild.spec.tuning import TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop.memory import grow_segments
from tunebuild.train.loop.rows import load_rows
from tunebuild.train.loop.run import LoadedBase, train_model
from tunebuild.train.model.attention import try_packing
from tunebuild.train.model.base import keep_4bit_weights_unpacked, quantise_layer
from tunebuild.train.plan.execution import ComputePlan, plan_training
from tunebuild.train.plan.hardware import decide
from tunebuild.train.plan.settings import TrainSettings
from tunebuild.train.plan.shapes import count_parameters, linear_parameters

grow_segments()  # as the train stage does, before there is a card's allocator

# Hidden size, layers, inner size, heads, key-value heads, vocabulary.
SHAPES = {
    "tiny": (64, 2, 128, 4, 2, 512),
    "0.5B": (1024, 24, 2816, 16, 4, 32_000),
    "1B": (2048, 16, 8192, 32, 8, 128_256),
    "7B": (4096, 32, 14_336, 32, 8, 32_000),  # Mistral-7B's
    "tiny MoE": (64, 2, 128, 4, 2, 512),
    "8x1B": (2048, 16, 5632, 32, 8, 32_000),
    "70B": (8192, 80, 28_672, 64, 8, 128_256),  # Llama-3-70B's
}
# Of these, each layer has so many experts of the inner size, two for a token: Mixtral's architecture.
EXPERTS = {"tiny MoE": 4, "8x1B": 8}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MEAN, LONGEST = 200, 2048  # tokens of a row


def config_of(shape: str) -> LlamaConfig | MixtralConfig:
    """A configuration of one of the shapes."""
    hidden, layers, inner, heads, key_values, vocabulary = SHAPES[shape]
    experts = {"num_local_experts": EXPERTS[shape], "num_experts_per_tok": 2} if shape in EXPERTS else {}
    return (MixtralConfig if experts else LlamaConfig)(
        **experts,
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=key_values,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        eos_token_id=1,
        pad_token_id=1,
        use_cache=False,
    )


def model_of(shape: str, dtype: torch.dtype, *, nf4: bool) -> PreTrainedModel:
    """A model with random weights on the device; no more than one layer of it is ever there in 16 bits."""
    torch.manual_seed(0)
    config = config_of(shape)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    rotary = MixtralRotaryEmbedding if shape in EXPERTS else LlamaRotaryEmbedding
    model.model.rotary_emb = rotary(config).to(DEVICE)
    head = model.get_output_embeddings()
    for name in [name for name, _ in model.named_modules()]:
        module = model.get_submodule(name)
        for key, parameter in list(module.named_parameters(recurse=False)):
            value = torch.empty(parameter.shape, dtype=dtype, device=DEVICE)
            value = value.fill_(1.0) if value.ndim == 1 else value.normal_(std=config.initializer_range)
            setattr(module, key, nn.Parameter(value, requires_grad=False))
        if nf4 and isinstance(module, nn.Linear) and module is not head:
            model.set_submodule(name, quantise_layer(module, dtype))
    keep_4bit_weights_unpacked(model)
    return model


def tensors_of(shape: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's weights, as they are published: each expert for itself."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(shape))
    loaded = {name: tuple(p.shape) for name, p in model.named_parameters()}
    found = {name: sizes for name, sizes in loaded.items() if ".experts." not in name}
    for name, (experts, rows, columns) in ((n, s) for n, s in loaded.items() if ".experts." in n):
        prefix, _, kind = name.rpartition(".")
        apart = {"w2": rows} if kind == "down_proj" else {"w1": rows // 2, "w3": rows // 2}
        for number in range(experts):
            found |= {f"{prefix}.{number}.{part}.weight": (size, columns) for part, size in apart.items()}
    return found


def tokenizer() -> Any:
    """One that knows an end token, which is all that training asks of it."""
    words = Tokenizer(WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="</s>")


def lengths_of(rows: int, seed: int = 0) -> np.ndarray:
    """Lognormal lengths with a long tail."""
    chance = np.random.default_rng(seed)
    sigma = 0.8
    drawn = chance.lognormal(np.log(MEAN) - sigma**2 / 2, sigma, rows)
    return np.clip(drawn, 8, LONGEST).astype(int)


def write_rows(path: Path, lengths: np.ndarray, vocabulary: int) -> None:
    """Rows of random tokens; the second half of each is supervised."""
    chance = np.random.default_rng(1)
    write_examples(
        path,
        (Example(chance.integers(2, vocabulary, n).tolist(), ((int(n) // 2, int(n)),)) for n in lengths),
    )


@dataclass(frozen=True)
class Trained:
    """A training that was made: its plan, and what it wrote."""

    plan: ComputePlan
    settings: TrainSettings
    metrics: list[dict[str, Any]]
    memory: dict[str, Any]

    @property
    def peak(self) -> int:
        """Bytes that the allocator handed out at most; 0 without a card."""
        measured = self.memory["measured_peak"]
        return measured - self.plan.memory.overhead if measured else 0

    @property
    def planned(self) -> int:
        """Bytes that were planned for that."""
        return self.plan.memory.total - self.plan.memory.overhead


def train(shape: str, tuning: TuningSpec, steps: int, work: Path, *, compiled: bool = True) -> Trained:
    """Make the first steps of a training, planned like a long one (or, not compiled, like a short one)."""
    tensors = tensors_of(shape)
    settings = decide(tuning, base_parameters=count_parameters(tensors))
    lengths = lengths_of(tuning.batch_size * steps)
    write_rows(work / "rows.arrow", lengths, SHAPES[shape][-1])
    long = settings.tuning.model_copy(update={"epochs": 1000 if compiled else 0.001})
    plan = plan_training(config_of(shape).to_dict(), tensors, replace(settings, tuning=long), lengths)
    dtype = torch.float32 if settings.full else getattr(torch, settings.compute_dtype)
    model = model_of(shape, dtype, nf4=settings.tuning.method == "qlora").requires_grad_(settings.full)
    if plan.execution.packed:
        assert not try_packing(model)
    for name in ("work", "out"):
        (work / name).mkdir()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
    train_model(
        LoadedBase(model, tokenizer(), work, linear_parameters(tensors)),
        plan,
        settings,
        rows=load_rows(work / "rows.arrow"),
        held_out=None,
        work=work / "work",
        out=work / "out",
        progress=Silent(),
    )
    metrics = [json.loads(line) for line in (work / "out" / "metrics.jsonl").read_text().splitlines()]
    memory = json.loads((work / "out" / "memory.json").read_text())
    return Trained(plan, settings, metrics, memory)
