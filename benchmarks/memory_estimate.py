"""How near the plan's memory estimate is to what training takes, on this machine's card.

For each shape (random weights, made here) and setting: two steps of the real training, the peak that the
allocator saw, and the estimate without the overhead that no allocator sees. ``--tiny`` rehearses on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tunebuild.data.tokenised import write_examples
from tunebuild.lock.base_model import find_base_model
from tunebuild.prompt import Example
from tunebuild.spec.model import ModelSpec
from tunebuild.spec.tuning import TuningSpec
from tunebuild.store import Silent, digest_bytes
from tunebuild.train.estimate import estimate_memory, read_tensors
from tunebuild.train.hardware import decide
from tunebuild.train.run import train_adapter

# Hidden size, layers, inner size, heads, key-value heads, vocabulary.
SHAPES = {
    "tiny": (64, 2, 128, 4, 2, 512),
    "0.5B": (1024, 24, 2816, 16, 4, 32_000),
    "1B": (2048, 16, 8192, 32, 8, 128_256),
    "7B": (4096, 32, 14_336, 32, 8, 32_000),
}


@dataclass(frozen=True)
class Case:
    """A shape, a method, rows at once, and tokens in a row."""

    shape: str
    method: str
    rows: int
    tokens: int


CASES = [
    Case("0.5B", "lora", 8, 512),
    Case("0.5B", "qlora", 8, 512),
    Case("0.5B", "qlora", 1, 4096),
    Case("1B", "lora", 2, 2048),
    Case("1B", "qlora", 4, 1024),
    Case("1B", "qlora", 1, 256),
    Case("7B", "qlora", 1, 2048),
    Case("7B", "qlora", 8, 512),
    Case("7B", "lora", 4, 1024),
]


def make_base(directory: Path, name: str) -> None:
    """A model directory with random weights."""
    hidden, layers, inner, heads, key_values, vocabulary = SHAPES[name]
    config = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=key_values,
        vocab_size=vocabulary,
    )
    config.eos_token_id = config.pad_token_id = 1
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(directory, max_shard_size="2GB")
    words = Tokenizer(WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="</s>")
    tokenizer.save_pretrained(directory)


def measure(case: Case, base: Path, work: Path) -> tuple[int, int]:
    """Estimated and measured bytes, overhead left out of both."""
    tuning = TuningSpec(
        method=case.method,
        epochs=1,
        batch_size=case.rows,
        max_length=max(8, case.tokens),
        warmup_steps=0,
    )
    settings = decide(tuning)
    chance = random.Random(0)
    examples = []
    for _ in range(2 * case.rows):
        ids = [chance.randrange(2, SHAPES[case.shape][-1]) for _ in range(case.tokens)]
        examples.append(Example(ids, ((case.tokens // 2, case.tokens),)))
    for name in ("rows", "work", "out"):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir(parents=True)
    write_examples(work / "rows" / "train.arrow", examples)
    found = find_base_model(ModelSpec(base=f"./{base.name}"), base.parent, work, lambda p: digest_bytes(b""))
    estimate = estimate_memory(found.config, read_tensors(found), settings, tokens_per_row=case.tokens)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    train_adapter(
        settings, data=work / "rows", base=base, work=work / "work", out=work / "out", progress=Silent()
    )
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    print(" ", estimate)
    return estimate.total - estimate.overhead, peak


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="only see that it runs")
    tiny = parser.parse_args().tiny
    if not tiny and not torch.cuda.is_available():
        print("no card here; nothing measured")
        return
    cases = [Case("tiny", "qlora", 2, 32)] if tiny else CASES
    print(f"torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        made = ""
        for case in cases:
            base = Path(scratch) / "base"
            if made != case.shape:
                shutil.rmtree(base, ignore_errors=True)
                make_base(base, case.shape)
                made = case.shape
            estimated, peak = measure(case, base, Path(scratch))
            error = f"{estimated / peak - 1:+.0%}" if peak else "not measured"
            print(
                f"{case.shape:>5} {case.method:<5} {case.rows} x {case.tokens:<5} "
                f"estimated {estimated / 1e9:6.2f} GB  measured {peak / 1e9:6.2f} GB  {error}",
                flush=True,
            )


if __name__ == "__main__":
    main()
