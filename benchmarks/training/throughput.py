"""Training speed on a card: a tutorial's code, TRL's defaults, and what a spec does here.

Mistral-7B's shape with random weights and rows of 200 tokens on average, in one run on one machine. Speed is
that of real tokens, padding left out; the share is that of the card's own rate of bfloat16 products, at 4
operations for each weight of a linear layer (a frozen weight has no gradient). Each recipe has a process of
its own. ``--shape tiny`` rehearses on a CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import BitsAndBytesConfig, TrainerCallback
from trl import SFTConfig, SFTTrainer

from models import DEVICE, LONGEST, SHAPES, lengths_of, model_of, tensors_of, tokenizer, train, write_rows
from tunebuild.spec.tuning import TuningSpec
from tunebuild.train.loop.rows import load_rows
from tunebuild.train.plan.shapes import linear_parameters
from tunebuild.train.plan.speed import Limit, flops_per_token, measure_limit

#: Name -> the tuning section of a spec.
SPECS: dict[str, dict[str, Any]] = {
    "memory: auto": {"method": "auto", "batch_size": 128},
    "memory: auto, qlora": {"method": "qlora", "batch_size": 128},
    "memory: {fit: 12GB}": {"method": "auto", "memory": {"fit": "12GB"}, "batch_size": 128},
}
BASELINES = ("tutorial", "TRL defaults")
STEPS = 8  # and two that are not counted
LARGE = "70B, fit: 80GB"


class _Clock(TrainerCallback):
    """Seconds of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def run_baseline(name: str, shape: str, work: Path, shared: Path) -> dict[str, Any]:
    """The tutorial's code (fp4, float16, rank 8 on q and v, checkpointing), or TRL's defaults with NF4."""
    tutorial = name == "tutorial"
    dtype = torch.float16 if tutorial else torch.bfloat16
    base = shared / "base"
    if not base.is_dir():
        model_of(shape, torch.bfloat16, nf4=False).save_pretrained(base, max_shard_size="2GB")
    model = _loaded(base, dtype, tutorial)
    if tutorial:
        model = prepare_model_for_kbit_training(model)
    targets = ["q_proj", "v_proj"] if tutorial else "all-linear"
    lora = LoraConfig(r=8 if tutorial else 16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM")
    rows = 4 * (STEPS + 3)
    lengths = lengths_of(rows)
    write_rows(work / "rows.arrow", lengths, SHAPES[shape][-1])
    data: Dataset = load_rows(work / "rows.arrow")
    clock = _Clock()
    trainer = SFTTrainer(
        model=get_peft_model(model, lora),
        args=SFTConfig(
            output_dir=str(work / "out"),
            per_device_train_batch_size=4,
            max_steps=STEPS + 3,
            bf16=DEVICE == "cuda",
            use_cpu=DEVICE == "cpu",
            gradient_checkpointing=True,
            max_length=LONGEST,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            shuffle_dataset=False,
            train_sampling_strategy="sequential",
        ),
        train_dataset=data.remove_columns("labels"),
        processing_class=tokenizer(),
        callbacks=[clock],
    )
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    seconds = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
    tokens = [int(lengths[4 * n : 4 * n + 4].sum()) for n in range(len(seconds))]
    return {"speed": sum(tokens[2:]) / sum(seconds[2:]), "peak": _peak(), "how": "4 rows a step, padded"}


def run_spec(name: str, shape: str, work: Path, _: Path) -> dict[str, Any]:
    """What a spec reaches, as its metrics say."""
    large = name == LARGE
    options = {"method": "qlora", "memory": {"fit": "80GB"}, "batch_size": 16} if large else SPECS[name]
    tuning = TuningSpec(**options, epochs=1, max_length=LONGEST, warmup_steps=0)
    trained = train(shape, tuning, 5 if large else STEPS + 2, work)
    speeds = [line["tokens_per_second"] for line in trained.metrics if "tokens_per_second" in line][1:]
    execution = trained.plan.execution
    return {
        "speed": statistics.median(speeds),
        "peak": trained.peak,
        "reserved": torch.cuda.max_memory_reserved() if DEVICE == "cuda" else 0,
        "planned": trained.planned,
        "how": f"{trained.settings.tuning.method}, {tuning.batch_size} rows a step, micro-batches: "
        f"{execution.micro_batches} of {execution.max_tokens}, checkpointed layers: {execution.checkpointed}",
        "out_of_memory": trained.memory["out_of_memory"],
    }


def _loaded(base: Path, dtype: torch.dtype, tutorial: bool) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        base,
        dtype=dtype,
        device_map={"": 0} if DEVICE == "cuda" else None,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="fp4" if tutorial else "nf4",
            bnb_4bit_compute_dtype=dtype,
        ),
    )


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0


def main() -> None:
    """Run all recipes, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="7B", choices=SHAPES)
    parser.add_argument("--recipe", help="run one, here, and print its figures as JSON")
    parser.add_argument("--scratch", type=Path, help="where the recipes leave what they share")
    parser.add_argument("--large", action="store_true", help="also a QLoRA of a 70B shape")
    options = parser.parse_args()
    if options.shape != "tiny" and DEVICE == "cpu":
        print("no card here; nothing measured")
        return
    if options.recipe:
        run = run_baseline if options.recipe in BASELINES else run_spec
        with tempfile.TemporaryDirectory() as own:
            print(json.dumps(run(options.recipe, options.shape, Path(own), options.scratch or Path(own))))
        return
    limit = measure_limit(linear_parameters(tensors_of(options.shape)))
    if limit:
        rate = limit.flops_per_second / 1e12
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {rate:.0f} TFLOP/s", flush=True)
    first: float | None = None
    recipes = [(name, options.shape) for name in (*BASELINES, *SPECS)]
    if options.large:
        recipes.append((LARGE, "tiny" if options.shape == "tiny" else "70B"))
    with tempfile.TemporaryDirectory() as scratch:
        for name, shape in recipes:
            command = [sys.executable, __file__, "--shape", shape, "--recipe", name, "--scratch", scratch]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name}: failed\n{done.stderr[-3000:]}", flush=True)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            first = first or found["speed"]
            _report(name, shape, found, first, limit)


def _report(name: str, shape: str, found: dict[str, Any], first: float, limit: Limit | None) -> None:
    share = ""
    if limit:
        weights = linear_parameters(tensors_of(shape))
        own = Limit(limit.flops_per_second, flops_per_token(weights))
        share = f"{own.share(found['speed']):6.1%}"
    print(
        f"{name:22} {found['speed']:9,.0f} tokens/s {found['speed'] / first:6.1f}x {share} "
        f"peak {found['peak'] / 1e9:6.2f} GB (reserved {found.get('reserved', 0) / 1e9:.2f}, "
        f"planned {found.get('planned', 0) / 1e9:.2f}); {found['how']} {found.get('out_of_memory') or ''}",
        flush=True,
    )


if __name__ == "__main__":
    main()
