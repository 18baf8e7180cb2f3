"""The streaming merge beside a plain copy of the same bytes, and beside PEFT's merge in memory.

A base with random weights and a random adapter on all linear layers are made here. Each contender runs in a
process of its own; its time, its peak memory as the kernel counts it (libraries and pages of mapped files
included), and, for the two merges, whether every tensor is equal. ``--shape tiny`` rehearses.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tunebuild.merge.run import merge_adapter
from tunebuild.merge.safetensors_io import list_tensors
from tunebuild.store import Silent

# Hidden size, layers, inner size, heads, key-value heads, vocabulary.
SHAPES = {
    "tiny": (64, 2, 128, 4, 2, 512),
    "1B": (2048, 16, 8192, 32, 8, 128_256),
    "7B": (4096, 32, 14_336, 32, 8, 32_000),
}
RANK = 16


def make(directory: Path, name: str) -> None:
    """``base/`` in 2 GB shards, and ``trained/adapter``."""
    hidden, layers, inner, heads, key_values, vocabulary = SHAPES[name]
    config = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=key_values,
        vocab_size=vocabulary,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(directory / "base", max_shard_size="2GB")
    adapter, modules = {}, []
    for module_name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lm_head" not in module_name:
            rows, columns = module.weight.shape
            prefix = f"base_model.model.{module_name}"
            adapter[f"{prefix}.lora_A.weight"] = torch.randn(RANK, columns) * 0.02
            adapter[f"{prefix}.lora_B.weight"] = torch.randn(rows, RANK) * 0.02
            modules.append(module_name)
    (directory / "trained" / "adapter").mkdir(parents=True)
    save_file(adapter, directory / "trained" / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": sorted({m.rpartition(".")[2] for m in modules}),
        "inference_mode": True,
    }
    (directory / "trained" / "adapter" / "adapter_config.json").write_text(json.dumps(settings))


def copy(directory: Path) -> None:
    """Every byte of the base once through sha256 and to disk."""
    (directory / "copy").mkdir()
    for shard in sorted((directory / "base").glob("*.safetensors")):
        state = hashlib.sha256()
        with shard.open("rb", buffering=0) as source, (directory / "copy" / shard.name).open("wb") as sink:
            while block := source.read(1 << 20):
                state.update(block)
                sink.write(block)


def ours(directory: Path) -> None:
    """The product's merge."""
    (directory / "ours").mkdir()
    merge_adapter(
        "original",
        base=directory / "base",
        trained=directory / "trained",
        out=directory / "ours",
        progress=Silent(),
    )


def peft(directory: Path) -> None:
    """What tutorials do."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(directory / "base", dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(base, directory / "trained" / "adapter").merge_and_unload()
    merged.save_pretrained(directory / "peft", max_shard_size="2GB")


CONTENDERS = {"copy": copy, "ours": ours, "peft": peft}


def differing(one: Path, other: Path) -> int:
    """How many tensors are not equal."""
    stored = {t.name: t for t in list_tensors(one)}
    seen, count = set(), 0
    for file in sorted(other.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                seen.add(name)
                count += not torch.equal(stored[name].read(), tensors.get_tensor(name))
    return count + len(stored.keys() ^ seen)


def main() -> None:
    """Print a line for each contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="1B")
    parser.add_argument("--run", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help="where to work; removed afterwards")
    options = parser.parse_args()
    if options.run:
        started = time.monotonic()
        CONTENDERS[options.run](options.directory)
        seconds = time.monotonic() - started
        # Not getrusage's figure, which a process inherits from the one that started it.
        status = Path("/proc/self/status").read_text("ascii")
        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        print(json.dumps({"seconds": seconds, "peak": peak}))
        return
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        directory = Path(scratch)
        make(directory, options.shape)
        size = sum(f.stat().st_size for f in (directory / "base").glob("*.safetensors"))
        print(f"{options.shape}: {size / 1e9:.2f} GB, adapter on all linear layers, r {RANK}", flush=True)
        for name in ("copy", "ours", "copy", "ours", "peft"):
            shutil.rmtree(directory / name, ignore_errors=True)
            argv = [sys.executable, __file__, "--run", name, "--directory", scratch]
            done = subprocess.run(argv, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{name:<5} {found['seconds']:7.1f} s  peak {found['peak'] / 1e6:8,.0f} MB", flush=True)
            if name == "copy":
                shutil.rmtree(directory / "copy")
        print(
            f"tensors that differ from PEFT's: {differing(directory / 'ours' / 'model', directory / 'peft')}"
        )


if __name__ == "__main__":
    main()
