"""One of two processes runs out of memory: it halves what it does, or says what does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from support.models import save_base
from support.rows import write_rows
from tunebuild.spec.tuning import LoraSpec, TuningSpec
from tunebuild.store import Silent
from tunebuild.train.loop.run import train_adapter
from tunebuild.train.plan.settings import TrainSettings

# A device cannot be filled on purpose here. Processes that this starts import it, too, and so have the fault.
SCRIPT = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    import torch
    from transformers.models.llama.modeling_llama import LlamaMLP
    from tunebuild.errors import TunebuildError
    from tunebuild.spec.tuning import TuningSpec
    from tunebuild.store import Silent
    from tunebuild.train.launch.processes import train_in_processes
    from tunebuild.train.plan.settings import TrainSettings

    original, room = LlamaMLP.forward, int(sys.argv[3])
    def forward(module, x):
        if module.training and os.environ.get("RANK") == "1" and x.shape[0] * x.shape[1] > room:
            raise torch.OutOfMemoryError("full")
        return original(module, x)
    LlamaMLP.forward = forward

    if __name__ == "__main__":
        root = Path(sys.argv[1])
        settings = TrainSettings(TuningSpec.model_validate_json(sys.argv[2]), "cpu", "float32")
        try:
            train_in_processes(settings, data=root / "rows", base=root / "base", work=root / "two-work",
                               out=root / "two-out", progress=Silent())
        except TunebuildError as error:
            sys.exit(str(error))
    """
)


def tuning(**changes):
    lora = LoraSpec(r=4, alpha=8)
    return TuningSpec(
        method="lora", epochs=3, batch_size=8, learning_rate=1e-2, warmup_steps=0, max_length=128, lora=lora,
        **changes,
    )  # fmt: skip


@pytest.fixture
def prepared(tmp_path):
    save_base("llama", tmp_path / "base")
    write_rows(tmp_path / "base", tmp_path / "rows")
    for name in ("one-work", "one-out", "two-work", "two-out"):
        (tmp_path / name).mkdir()
    return tmp_path


def run(root, tuning, room):
    script = root / "script.py"
    script.write_text(SCRIPT, "utf-8")
    arguments = [str(root), tuning.model_dump_json(), str(room)]
    return subprocess.run([sys.executable, script, *arguments], check=False, capture_output=True, text=True)


def metrics(out, name):
    lines = map(json.loads, (out / "metrics.jsonl").read_text("utf-8").splitlines())
    return [line[name] for line in lines if name in line]


@pytest.mark.slow
def test_one_rank_halves_its_micro_batch_while_the_other_waits(prepared):
    one, two = prepared / "one-out", prepared / "two-out"
    train_adapter(
        TrainSettings(tuning(), "cpu", "float32"),
        data=prepared / "rows", base=prepared / "base", work=prepared / "one-work", out=one,
        progress=Silent(),
    )  # fmt: skip
    done = run(prepared, tuning(processes=2, micro_batch_size=2), room=50)
    assert done.returncode == 0, done.stderr
    memory = json.loads((two / "memory.json").read_text("utf-8"))
    assert memory["execution"]["micro_batches"] == 2
    assert memory["out_of_memory"][0]["tokens"] > 50
    for name in ("loss", "grad_norm", "mean_token_accuracy", "num_tokens"):
        assert metrics(two, name) == pytest.approx(metrics(one, name), rel=1e-5)


@pytest.mark.slow
def test_fsdp_reports_the_micro_batch_that_does_not_fit(prepared):
    done = run(prepared, tuning(processes=2, shard=True), room=10)
    assert done.returncode == 1
    message = "tuning.micro_batch_size: in process 2 of 2, a micro-batch of"
    assert done.stderr.splitlines()[-1].startswith(message)
    assert "does not fit into the device's memory" in done.stderr
