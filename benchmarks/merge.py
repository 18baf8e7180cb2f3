"""The streaming merge beside a plain copy of the same bytes, and beside PEFT's merge in memory.

A base of Mistral-7B's shape with as many layers as the wanted size needs, random weights, and a random
adapter on all linear layers are made here. Each contender runs in a process of its own, with the base in the
page cache if it fits there: a copy, the merge into the published weights and the one into what QLoRA made of
them, each followed by the proof of what it wrote, in turn, twice, so that they meet the same disk; then
PEFT's merge_and_unload and save_pretrained.
Printed are wall time, the peak memory as the kernel counts it, the ratio of the faster merge to the faster
copy, and how many tensors differ from PEFT's. PEFT needs the whole model in memory; --without-peft leaves it
and the comparison out.

    python benchmarks/merge.py                          about 3 GB, fits a laptop
    python benchmarks/merge.py --gigabytes 14.5 --directory /mnt/scratch
                                                        the whole 7B shape; needs 60 GB of disk, 20 of memory
    python benchmarks/merge.py --gigabytes 0.01 --tiny  rehearses in a few seconds
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
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file

from tunebuild.merge.proof.run import prove
from tunebuild.merge.run import merge_adapter
from tunebuild.merge.safetensors_io import list_tensors
from tunebuild.store import Silent

RANK = 16
SHARD = 2 * 10**9


def tensors_of(config: dict[str, int], layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama-like model's weights."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = hidden // config["num_attention_heads"]
    key_values = head * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for number in range(layers):
        layer = f"model.layers.{number}"
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (hidden, hidden),
            f"{layer}.self_attn.k_proj.weight": (key_values, hidden),
            f"{layer}.self_attn.v_proj.weight": (key_values, hidden),
            f"{layer}.self_attn.o_proj.weight": (hidden, hidden),
            f"{layer}.mlp.gate_proj.weight": (inner, hidden),
            f"{layer}.mlp.up_proj.weight": (inner, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, inner),
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
        }
    return {**shapes, "model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def make(directory: Path, gigabytes: float, *, tiny: bool) -> None:
    """``base/`` in 2 GB shards, and ``trained/adapter``."""
    config = {
        "hidden_size": 64 if tiny else 4096,
        "intermediate_size": 128 if tiny else 14_336,
        "num_attention_heads": 4 if tiny else 32,
        "num_key_value_heads": 2 if tiny else 8,
        "vocab_size": 512 if tiny else 32_000,
    }
    rest = 2 * sum(torch.Size(s).numel() for s in tensors_of(config, 0).values())
    layer = 2 * sum(torch.Size(s).numel() for s in tensors_of(config, 1).values()) - rest
    layers = max(1, min(32, round((gigabytes * 1e9 - rest) / layer)))
    base, adapter = directory / "base", directory / "trained" / "adapter"
    base.mkdir()
    adapter.mkdir(parents=True)
    settings = {**config, "num_hidden_layers": layers, "model_type": "llama", "dtype": "bfloat16"}
    settings |= {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
    (base / "config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    noise = (
        torch.randn(1 << 22).mul_(0.02).bfloat16()
    )  # drawing 7 billion numbers would take longer than all else
    shards: list[dict[str, torch.Tensor]] = [{}]
    weight_map, update, filled = {}, {}, 0

    def save() -> None:
        save_file(shards[-1], base / f"model-{len(shards):05d}.safetensors", {"format": "pt"})
        shards[-1].clear()

    for name, shape in tensors_of(config, layers).items():
        count = torch.Size(shape).numel()
        if filled + 2 * count > SHARD:
            save()
            shards.append({})
            filled = 0
        filled += 2 * count
        start = int(torch.randint(1 << 20, ()))
        values = noise[start:].repeat(count // (len(noise) - start) + 1)[:count]
        shards[-1][name] = values.view(shape).clone() if len(shape) == 2 else torch.ones(shape).bfloat16()
        weight_map[name] = f"model-{len(shards):05d}.safetensors"
        if "_proj" in name:
            prefix = f"base_model.model.{name.removesuffix('.weight')}"
            update[f"{prefix}.lora_A.weight"] = torch.randn(RANK, shape[1]) * 0.02
            update[f"{prefix}.lora_B.weight"] = torch.randn(shape[0], RANK) * 0.02
    save()
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    save_file(update, adapter / "adapter_model.safetensors", {"format": "pt"})
    quantized = [name.removesuffix(".weight") for name in weight_map if "_proj" in name]
    record = {"modules": quantized, "load_dtype": "bfloat16", "blocksize": 64, "double_quant": True}
    record["bitsandbytes"] = version("bitsandbytes")
    (directory / "trained" / "quantization.json").write_text(json.dumps(record))
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK}
    settings |= {
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    }
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "inference_mode": True}))


def copy(directory: Path) -> None:
    """Every byte of the base once through sha256 and to disk."""
    (directory / "copy").mkdir()
    for shard in sorted((directory / "base").glob("*.safetensors")):
        state = hashlib.sha256()
        with shard.open("rb", buffering=0) as source, (directory / "copy" / shard.name).open("wb") as sink:
            while block := source.read(1 << 20):
                state.update(block)
                sink.write(block)


def ours(directory: Path, strategy: Literal["original", "dequantized"]) -> None:
    """The product's merge."""
    out = directory / strategy
    out.mkdir()
    merge_adapter(
        strategy, base=directory / "base", trained=directory / "trained", out=out, progress=Silent()
    )


def proof(directory: Path, strategy: Literal["original", "dequantized"]) -> None:
    """The product's proof of what that merge wrote."""
    trained, merged = directory / "trained", directory / strategy / "model"
    found = prove(strategy, base=directory / "base", trained=trained, merged=merged, progress=Silent())
    assert found.updated
    print(found.sentence, file=sys.stderr)


def peft(directory: Path) -> None:
    """What tutorials do."""
    from peft import PeftModel  # here, so that nobody else pays for it
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(directory / "base", dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(base, directory / "trained" / "adapter").merge_and_unload()
    merged.save_pretrained(directory / "peft", max_shard_size="2GB")


CONTENDERS = {
    "copy": copy,
    "original": partial(ours, strategy="original"),
    "dequantized": partial(ours, strategy="dequantized"),
    "peft": peft,
    "prove original": partial(proof, strategy="original"),
    "prove dequantized": partial(proof, strategy="dequantized"),
}
TURNS = ("copy", "original", "dequantized")


def differing(one: Path, other: Path) -> int:
    """How many tensors are not equal, bit for bit."""
    stored, expected = ({t.name: t for t in list_tensors(d)} for d in (one, other))
    differ = [
        n for n in stored.keys() & expected.keys() if not torch.equal(stored[n].read(), expected[n].read())
    ]
    return len(differ) + len(stored.keys() ^ expected.keys())


def run(name: str, directory: Path) -> dict[str, float]:
    """One contender on its own: ``seconds`` and ``cpu`` seconds; ``peak``, ``libraries`` in bytes."""
    shutil.rmtree(directory / name, ignore_errors=True)
    argv = [sys.executable, __file__, "--run", name, "--directory", str(directory)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    text = f"{name:<18} {found['seconds']:7.1f} s, of CPU {found['cpu']:6.1f} s, "
    text += f"peak {found['peak'] / 1e6:8,.0f} MB"
    print(f"{text}, {found['libraries'] / 1e6:,.0f} MB of it before it began", flush=True)
    return found


def peak() -> int:
    """Of this process, in bytes. Not getrusage's figure, which is inherited from the process before."""
    return int(Path("/proc/self/status").read_text("ascii").partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Print a line for each run, and what follows from them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--gigabytes", type=float, default=3.2, help="size of the base; 14.5 is all 32 layers"
    )
    parser.add_argument("--tiny", action="store_true", help="narrow layers, to rehearse")
    parser.add_argument("--without-peft", action="store_true", help="PEFT's merge needs the model in memory")
    parser.add_argument("--run", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--directory", type=Path, help="where to work (three times the size); removed afterwards"
    )
    options = parser.parse_args()
    if options.run:
        libraries, started, worked = peak(), time.monotonic(), time.process_time()
        CONTENDERS[options.run](options.directory)
        seconds, cpu = time.monotonic() - started, time.process_time() - worked
        print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak(), "libraries": libraries}))
        return
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        directory = Path(scratch)
        make(directory, options.gigabytes, tiny=options.tiny)
        size = sum(f.stat().st_size for f in (directory / "base").glob("*.safetensors"))
        adapter = sum(f.stat().st_size for f in (directory / "trained").rglob("*.safetensors"))
        print(f"base {size / 1e9:.2f} GB, adapter {adapter / 1e6:.0f} MB on all linear layers", flush=True)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for name in TURNS * 2:
            found[name].append(run(name, directory))
            if name != "copy":
                found[f"prove {name}"].append(run(f"prove {name}", directory))
            if name != "original":  # which is compared with PEFT's
                shutil.rmtree(directory / name)
        copied, *merged = (min(one["seconds"] for one in found[name]) for name in TURNS)
        for name, seconds in zip(TURNS[1:], merged, strict=True):
            proven = found[f"prove {name}"]
            share = min(one["seconds"] for one in proven) / seconds
            cpu = min(one["cpu"] for one in proven) / min(one["cpu"] for one in found[name])
            text = f"prove {name} / {name}: {share:.2f} in time (goal 0.5), {cpu:.2f} in CPU time"
            over = max(one["peak"] - one["libraries"] for one in proven) / 1e6
            print(f"{text}, {over:,.0f} MB over the libraries")
            highest = max(one["peak"] for one in found[name])
            print(f"{name} / copy: {seconds / copied:.2f} in time (floor 1.5)")
            print(f"peak less the adapter: {(highest - adapter) / 1e6:,.0f} MB (floor 1,000)", flush=True)
        if not options.without_peft:
            run("peft", directory)
            differ = differing(directory / "original" / "model", directory / "peft")
            print(f"tensors that differ from PEFT's: {differ}")


if __name__ == "__main__":
    main()
