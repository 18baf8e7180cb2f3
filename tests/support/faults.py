"""Merges that were made wrong on purpose, and what became of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from support.models import save_base
from tunebuild.merge.run import merge_adapter
from tunebuild.spec.tuning import TuningSpec
from tunebuild.store import Silent
from tunebuild.train.model.adapter import save_adapter
from tunebuild.train.model.base import describe_quantization, load_base
from tunebuild.train.model.tied import share_factors
from tunebuild.train.plan.settings import TrainSettings


class Table:
    """Faults by kind of training: how many were tried, and how many caught."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], list[int]] = {}

    def note(self, fault: str, kind: str, caught: bool) -> None:
        tried = self.counts.setdefault((fault, kind), [0, 0])
        tried[0] += caught
        tried[1] += 1

    def __bool__(self) -> bool:
        return bool(self.counts)

    def lines(self) -> list[str]:
        faults = list(dict.fromkeys(fault for fault, _ in self.counts))
        kinds = list(dict.fromkeys(kind for _, kind in self.counts))
        wide = max(len(fault) for fault in faults) + 2
        lines = [" " * wide + "".join(f"{kind:>15}" for kind in kinds)]
        for fault in faults:
            cells = [self.counts.get((fault, kind)) for kind in kinds]
            lines.append(
                f"{fault:<{wide}}" + "".join(f"{f'{c[0]} of {c[1]}' if c else '-':>15}" for c in cells)
            )
        caught, tried = (sum(c[i] for c in self.counts.values()) for i in (0, 1))
        return [*lines, f"{caught} of {tried} caught"]


TABLE = Table()

LINEAR = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}


@dataclass
class Case:
    """A training, and its honest merge: directories below ``root``."""

    root: Path
    kind: str
    strategy: str = "original"
    dtype: torch.dtype = torch.bfloat16
    config: dict = field(default_factory=dict)
    strength: float = 0.05
    architecture: str = "llama"

    @property
    def base(self) -> Path:
        return self.root / "base"

    @property
    def trained(self) -> Path:
        return self.root / "trained"

    @property
    def merged(self) -> Path:
        return self.root / "out" / "model"

    def make(self) -> Case:
        """Base, adapter and honest merge."""
        make_base(self.architecture, self.base, self.dtype)
        if self.strategy == "trained":
            train_all(self)
        else:
            make_adapter(self)
        self.merge(self.root / "out")
        return self

    def merge(self, out: Path, *, base: Path | None = None, trained: Path | None = None) -> Path:
        """A merge of what may be another base or other tensors."""
        base, trained = base or self.base, trained or self.trained
        out.mkdir()
        if self.architecture == "experts":
            model = AutoModelForCausalLM.from_pretrained(base, dtype=self.dtype)
            PeftModel.from_pretrained(model, trained / "adapter").merge_and_unload().save_pretrained(
                out / "model"
            )
        else:
            merge_adapter(
                self.strategy, base=base, trained=trained, out=out, progress=Silent(), shard_bytes=60_000
            )
        return out / "model"

    def changed(self, name: str, change: Callable[[dict, dict], None]) -> Path:
        """Another training's output: tensors and configuration of the adapter changed, in place."""
        other = self.root / name
        shutil.copytree(self.trained, other)
        if self.strategy == "trained":
            file, config = other / "model" / "model.safetensors", {}
        else:
            file = other / "adapter" / "adapter_model.safetensors"
            config = json.loads((other / "adapter" / "adapter_config.json").read_text())
        tensors = load_file(file)
        change(tensors, config)
        save_file({n: t.contiguous() for n, t in tensors.items()}, file, {"format": "pt"})
        if config:
            (other / "adapter" / "adapter_config.json").write_text(json.dumps(config))
        return other


def make_base(architecture: str, directory: Path, dtype: torch.dtype, seed: int = 0) -> None:
    """A tiny base; another seed makes another one of the same shape."""
    if architecture == "experts":
        config = Qwen3MoeConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
            intermediate_size=128, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2,
            vocab_size=128,
        )  # fmt: skip
        torch.manual_seed(seed)
        Qwen3MoeForCausalLM(config).to(dtype).save_pretrained(directory)
        return
    save_base(architecture, directory, dtype=dtype)
    if seed:
        file = directory / "model.safetensors"
        generator = torch.Generator().manual_seed(seed)
        other = {
            n: t + 0.05 * torch.randn(t.shape, generator=generator).to(t.dtype)
            for n, t in load_file(file).items()
        }
        save_file(other, file, {"format": "pt"})


def make_adapter(case: Case, seed: int = 1) -> None:
    """A random adapter of a strength, as training leaves it."""
    torch.manual_seed(seed)
    config = {**LINEAR, **case.config}
    if case.architecture == "experts":
        config["target_parameters"] = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    model = AutoModelForCausalLM.from_pretrained(case.base, dtype=case.dtype)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    if "lm_head" in config["target_modules"] and config.get("ensure_weight_tying"):
        share_factors(model)  # PEFT parts them as it casts them to 32 bits
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:  # zeros at first
            torch.nn.init.normal_(parameter, std=case.strength)
        elif parameter.requires_grad and "lora_A" not in name:
            parameter.data.mul_(1 + case.strength * torch.rand_like(parameter))
    save_adapter(model, case.trained / "adapter")
    if case.strategy == "dequantized":
        settings = TrainSettings(TuningSpec(), "cpu", "bfloat16")
        record = describe_quantization(load_base(case.base, settings), settings)
        (case.trained / "quantization.json").write_text(json.dumps(record.to_json()))


def train_all(case: Case) -> None:
    """All weights moved a little, in float32 as full training keeps them."""
    model = AutoModelForCausalLM.from_pretrained(case.base, dtype=torch.float32)
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.add_(case.strength * 0.1 * torch.randn_like(parameter))
    model.save_pretrained(case.trained / "model")


def flip(file: Path, offset: int, bit: int) -> None:
    """Flip one bit of a file."""
    with file.open("r+b") as stream:
        stream.seek(offset)
        (byte,) = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte ^ (1 << bit)]))


def copy_of(case: Case, name: str) -> Path:
    """A copy of the honest merge, to be damaged."""
    shutil.copytree(case.merged, case.root / name)
    return case.root / name


__all__ = ["TABLE", "Case", "copy_of", "flip", "make_base"]
