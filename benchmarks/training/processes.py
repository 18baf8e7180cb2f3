"""Several cards of a machine beside one: speed, and the losses of the same steps.

    python benchmarks/training/processes.py --shape 7B --processes 2
    python benchmarks/training/processes.py --shape 1B --method full --shard

The base is written to a directory and trained by the build's own train stage, once by one process and once by
several, in this run; with ``--shard`` they split the model. ``--shape tiny`` rehearses on CPU processes over
gloo. A step has the same rows in both; its loss differs by rounding, since micro-batches differ. The peak
is that of the first process, without what libraries take.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from models import DEVICE, LONGEST, SHAPES, lengths_of, model_of, tokenizer, write_rows
from tunebuild.spec.tuning import TuningSpec
from tunebuild.store import Silent
from tunebuild.train.launch.processes import train_in_processes
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.plan.hardware import decide
from tunebuild.train.plan.shapes import count_parameters, read_tensors

STEPS = 12


class _Shown(Silent):
    def say(self, text: str) -> None:
        print(f"    {text}", flush=True)

    def step(self, done: int, total: int, note: str = "") -> None:
        print(f"    {time.strftime('%H:%M:%S')} {done} of {total} {note}", flush=True)


def train(base: Path, root: Path, tuning: TuningSpec) -> tuple[list[float], float]:
    """Losses of the steps, and tokens a second at the median step; prints the peak of memory."""
    settings = decide(tuning, base_parameters=count_parameters(read_tensors(base)))
    work, out = root / f"{tuning.processes}-work", root / f"{tuning.processes}-out"
    work.mkdir()
    out.mkdir()
    run = train_adapter if tuning.processes == 1 else train_in_processes
    run(settings, data=root, base=base, work=work, out=out, progress=_Shown())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    memory = json.loads((out / "memory.json").read_text())
    if memory["measured_peak"]:  # a processor's is not
        planned, peak = (
            memory[name] - memory["planned"]["overhead"] for name in ("planned_peak", "measured_peak")
        )
        print(f"    peak {peak / 1e9:.2f} GB, planned {planned / 1e9:.2f}", flush=True)
    return [s["loss"] for s in steps], statistics.median(s["tokens_per_second"] for s in steps[2:])


def main() -> None:
    """Train by one process and by several."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="7B", choices=SHAPES)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--shard", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root, base = Path(scratch), Path(scratch) / "base"
        started = time.monotonic()
        model_of(options.shape, torch.bfloat16, nf4=False).save_pretrained(base)
        tokenizer().save_pretrained(base)
        lengths = lengths_of(options.batch_size * STEPS)
        write_rows(root / "train.arrow", lengths, SHAPES[options.shape][-1])
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
        print(f"{options.shape} made in {time.monotonic() - started:.0f} s", flush=True)
        tuning = TuningSpec(
            method=options.method,
            epochs=1,
            batch_size=options.batch_size,
            max_length=LONGEST,
            warmup_steps=0,
            learning_rate=1e-5 if options.method == "full" else 2e-4,
        )
        several = tuning.model_copy(update={"processes": options.processes, "shard": options.shard})
        # The several first: a process that has used a card holds some of its memory until it ends.
        losses, speed = train(base, root, several)
        expected, alone = train(base, root, tuning)
    worst = max(abs(a - b) / b for a, b in zip(losses, expected, strict=True))
    print(
        f"1 process {alone:,.0f} tokens/s, {options.processes} processes {speed:,.0f}: {speed / alone:.2f}x; "
        f"losses differ by at most {worst:.1e} over {len(losses)} steps"
    )


if __name__ == "__main__":
    main()
