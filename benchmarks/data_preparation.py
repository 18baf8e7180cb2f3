"""Rows to tokens and labels: ours beside TRL's own preparation, on the same rows and the same machine.

    python benchmarks/data_preparation.py --rows 1000000 --trl-rows 100000

TRL prepares row by row at a steady pace, so fewer rows tell its speed. Imports are counted for neither, the
start of our worker processes is. Memory is the largest sum of resident memory of a process and its children,
seen every tenth of a second. Where other work takes part of the machine, the processor time of a row says
more than seconds: ours is spread over all cores, TRL's is on one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil


@dataclass(frozen=True)
class Done:
    """Seconds that passed, processor seconds of a process and its children, and how many tokens there are."""

    seconds: float
    cpu: float
    tokens: int


Prepare = Callable[[Path, Path, Path], Done]


# As many words as a set of questions about one field has, as often as Zipf's law says, so that remembering
# words is worth here what it is worth there.
_VOCABULARY, _WORDS_A_TEXT = 30_000, 45


def _words() -> list[str]:
    """Made-up words; short ones first, as the frequent ones are."""
    syllables = [
        c + v for c in "bcdfghklmnprstvw" for v in ("a", "e", "i", "o", "u", "an", "er", "ion", "ing")
    ]
    chance = random.Random(0)
    words = {"".join(chance.choices(syllables, k=chance.choice((1, 1, 2, 2, 3, 4)))) for _ in range(90_000)}
    return sorted(words, key=lambda word: (len(word), word))[:_VOCABULARY]


def write_rows(path: Path, rows: int) -> None:
    """Questions and answers of some fifty words each, no two alike."""
    words = np.array(_words())
    shares = 1 / (np.arange(len(words)) + 2.7)
    bounds = np.cumsum(shares / shares.sum())
    chance = np.random.default_rng(0)
    with path.open("w") as file:
        for i in range(rows):
            drawn = words[np.searchsorted(bounds, chance.random(2 * _WORDS_A_TEXT) * bounds[-1])].tolist()
            question = f"How do I reset device {i}? {' '.join(drawn[:_WORDS_A_TEXT])}"
            answer = f"Number {i}: {' '.join(drawn[_WORDS_A_TEXT:])}."
            file.write(json.dumps({"question": question, "answer": answer}) + "\n")


def make_base(directory: Path) -> Path:
    """A byte-level BPE of 8,000 tokens with a chat template, as most models have."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    special = ["<|im_start|>", "<|im_end|>"]
    texts = [
        " ".join(_words()[:8000]),
        "How do I reset device Number user assistant",
        *map(str, range(10_000)),
    ]
    trained.train_from_iterator(texts, 8000, special_tokens=special, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|im_end|>")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(directory)
    return directory


def ours(base: Path, rows: Path, out: Path) -> Done:
    """The ``data`` stage, as a build runs it."""
    from tunebuild.data import run  # noqa: F401 - imports are not what is measured
    from tunebuild.data.prompt_source import build_renderer
    from tunebuild.data.rows import RowSource
    from tunebuild.data.stage import DataStage
    from tunebuild.spec.data import DataSource, DataSpec
    from tunebuild.spec.model import PromptSpec
    from tunebuild.store import Silent, digest_file

    stage = DataStage(
        data=DataSpec(train=(DataSource(path=rows.name),)),
        train=(RowSource(rows, rows.name, "qa"),),
        held_out=(),
        file_digests=(digest_file(rows),),
        renderer=build_renderer(PromptSpec(), base, base),
        tokenizer_dir=base,
        max_length=2048,
        seed=0,
        vocabulary_size=10**6,
    )
    for name in ("work", "out"):
        (out / name).mkdir()
    start, before = time.perf_counter(), _cpu()
    stage.run(out / "work", out / "out", Silent())
    seconds, cpu = time.perf_counter() - start, _cpu() - before
    return Done(seconds, cpu, int(json.loads((out / "out" / "stats.json").read_text())["tokens"]))


def trl(base: Path, rows: Path, out: Path) -> Done:
    """The same of the preparation in SFTTrainer's constructor, as its users get it."""
    os.environ["HF_DATASETS_CACHE"] = str(out / "cache")
    from datasets import load_dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    def talk(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
        return {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        }

    tokenizer = AutoTokenizer.from_pretrained(base)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
    talks = load_dataset("json", data_files=str(rows), split="train").map(
        talk, remove_columns=["question", "answer"]
    )
    start, before = time.perf_counter(), _cpu()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(out / "t"), use_cpu=True, report_to=[], max_length=None),
        train_dataset=talks,
        processing_class=tokenizer,
    )
    seconds, cpu = time.perf_counter() - start, _cpu() - before
    prepared = trainer.train_dataset
    first = prepared["input_ids"][:1000]
    return Done(seconds, cpu, sum(map(len, first)) * len(prepared) // len(first))


def measure(name: str, prepare: Prepare, base: Path, count: int) -> float:
    """Run in a process of its own and print; returns rows a second."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        write_rows(directory / "rows.jsonl", count)
        queue: multiprocessing.Queue[Done] = multiprocessing.Queue()
        process = multiprocessing.Process(target=_put, args=(prepare, base, directory, queue))
        process.start()
        peak = 0
        while process.is_alive():
            peak = max(peak, _resident(process.pid))
            time.sleep(0.1)
        done = queue.get()
    print(
        f"{name:10} {count:>9,} rows  {done.seconds:8.1f} s  {count / done.seconds:8,.0f} rows/s  "
        f"{done.cpu / count * 1e6:6,.0f} us of processor time a row  "
        f"{done.tokens / count:5.0f} tokens/row  peak {peak / 1e6:6,.0f} MB",
        flush=True,
    )
    return count / done.seconds


def _put(
    prepare: Prepare,
    base: Path,
    directory: Path,
    queue: multiprocessing.Queue[Done],
) -> None:
    queue.put(prepare(base, directory / "rows.jsonl", directory))


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _resident(pid: int | None) -> int:
    try:
        process = psutil.Process(pid)
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def main() -> None:
    """Print both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="rows for ours (default: %(default)s)")
    parser.add_argument("--trl-rows", type=int, default=10_000, help="rows for TRL (default: %(default)s)")
    options = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        base = make_base(Path(scratch) / "base")
        fast = measure("tunebuild", ours, base, options.rows)
        slow = measure("TRL", trl, base, options.trl_rows)
    print(f"{fast / slow:.1f} times as many rows a second")


if __name__ == "__main__":
    main()
