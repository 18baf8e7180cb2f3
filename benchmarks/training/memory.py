"""How near the plan's memory estimate is to what training takes, on this machine's card.

For each shape (random weights) and setting: two steps of the real training, the peak that the allocator
handed out, and the estimate without the overhead that no allocator sees. Each case has a process of its own.
``--tiny`` rehearses on a CPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from models import DEVICE, LONGEST, train
from tunebuild.spec.tuning import TuningSpec

# Shape, whether layers are compiled, and the tuning section.
CASES: list[tuple[str, bool, dict[str, Any]]] = [
    ("0.5B", False, {"method": "lora", "batch_size": 32}),
    ("0.5B", True, {"method": "qlora", "batch_size": 32, "memory": {"fit": "4GB"}}),
    ("1B", True, {"method": "lora", "batch_size": 64}),
    ("1B", False, {"method": "qlora", "batch_size": 16, "packing": False}),
    ("1B", False, {"method": "lora", "batch_size": 16, "lora": {"dropout": 0.05}}),
    ("0.5B", True, {"method": "full", "batch_size": 64}),
    ("1B", False, {"method": "full", "batch_size": 64}),
    ("1B", True, {"method": "full", "batch_size": 64}),
    ("1B", False, {"method": "full", "batch_size": 64, "micro_batch_size": 16}),
    ("1B", False, {"method": "full", "batch_size": 64, "memory": {"fit": "40GB"}}),
    ("7B", True, {"method": "lora", "batch_size": 32, "memory": {"fit": "30GB"}}),
    ("7B", False, {"method": "lora", "batch_size": 16, "micro_batch_size": 8}),
    ("7B", True, {"method": "qlora", "batch_size": 32, "memory": {"fit": "10GB"}}),
    ("7B", True, {"method": "qlora", "batch_size": 32}),
    ("8x1B", False, {"method": "lora", "batch_size": 16}),
    ("8x1B", True, {"method": "lora", "batch_size": 32, "memory": {"fit": "40GB"}}),
    ("8x1B", False, {"method": "qlora", "batch_size": 32, "memory": {"fit": "30GB"}}),
]
TINY = [
    ("tiny", False, {"method": "qlora", "batch_size": 2}),
    ("tiny MoE", False, {"method": "lora", "batch_size": 2}),
]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="only see that it runs")
    parser.add_argument("--method", help="only the cases of this method")
    parser.add_argument("--shape", help="only the cases of this shape")
    parser.add_argument("--case", help="run one, given as JSON, in this process")
    options = parser.parse_args()
    if options.case:
        shape, compiled, tuning = json.loads(options.case)
        with tempfile.TemporaryDirectory() as scratch:
            spec = TuningSpec(**tuning, epochs=1, max_length=LONGEST, warmup_steps=0)
            trained = train(shape, spec, 2, Path(scratch), compiled=compiled)
        print(json.dumps([trained.planned, trained.peak, trained.plan.execution.to_json()]))
        return
    if not options.tiny and DEVICE == "cpu":
        print("no card here; nothing measured")
        return
    for case in TINY if options.tiny else CASES:
        if options.method not in (None, case[2]["method"]) or options.shape not in (None, case[0]):
            continue
        command = [sys.executable, __file__, "--case", json.dumps(case)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{case}: failed\n{done.stderr[-2000:]}", flush=True)
            continue
        planned, peak, execution = json.loads(done.stdout.splitlines()[-1])
        error = f"{planned / peak - 1:+.1%}" if peak else "not measured"
        shape, _, tuning = case
        print(
            f"{shape:>5} {json.dumps(tuning)}: planned {planned / 1e9:6.2f} GB, "
            f"measured {peak / 1e9:6.2f} GB, {error}; {execution}",
            flush=True,
        )


if __name__ == "__main__":
    main()
