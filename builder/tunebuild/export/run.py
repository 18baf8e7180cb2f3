"""Runs the tool's program in its own environment and watches it."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tunebuild.errors import fail
from tunebuild.grammar import counted
from tunebuild.merge.run import SHARD_BYTES
from tunebuild.store import Progress

if TYPE_CHECKING:
    from tunebuild.export.stage import ExportStage

_PROGRAM = Path(__file__).with_name("quantize.py")
_LOG, _REQUEST, _RECORD = "export.log", "request.json", "quantized.json"
# One of its bars: part of the model, of how many, and what is done with it.
_BAR = re.compile(r"\((\d+)/(\d+)\): (\w+)")


def quantize(stage: ExportStage, work: Path, out: Path, progress: Progress) -> None:
    """Write the exported model.

    Args:
        stage: what to export.
        work: gets the request and a log of what the tool says.
        out: gets ``model/``.
        progress: told of parts of the model.

    Raises:
        TunebuildError: the tool ended with an error, or quantized nothing.
    """
    export, model = stage.export, out / "model"
    model.mkdir()
    rows = calibration_rows(stage.data.path("train.arrow"), export.samples, stage.seed)
    request = {
        "parent": os.getpid(),
        "model": str(stage.merged.path("model").resolve()),
        "tokenizer": str(stage.data.path("prompt/tokenizer.json").resolve()),
        "format": export.format,
        "bits": export.bits,
        "group_size": export.group_size,
        "rows": rows,
        "shard_bytes": SHARD_BYTES,
        "out": str(model.resolve()),
    }
    (work / _REQUEST).write_text(json.dumps(request), "utf-8")
    _free_card()
    _run([str(stage.tool.python), "-I", str(_PROGRAM), str(work / _REQUEST)], stage.device, work, progress)
    record: dict[str, int] = json.loads((model / _RECORD).read_text("utf-8"))
    (model / _RECORD).unlink()
    if not record["quantized"]:
        message = f"none of the model's {counted(record['linear'], 'linear layer')} could be quantized"
        raise fail("export-nothing", message, "its architecture is not one that llm-compressor quantizes")
    progress.say(
        f"{export.name}: {record['quantized']} of {counted(record['linear'], 'linear layer')} quantized, "
        f"calibrated on {counted(len(rows), 'row')}"
    )


def calibration_rows(path: Path, samples: int, seed: int) -> list[list[int]]:
    """Token ids of training rows, drawn without returning them; in the order of the file.

    Args:
        path: ``train.arrow``.
        samples: how many, at most.
        seed: decides which.
    """
    with pa.memory_map(str(path)) as source:
        ids = pa.ipc.open_stream(source).read_all()["input_ids"]
        chosen = sorted(random.Random(seed).sample(range(len(ids)), min(samples, len(ids))))  # noqa: S311
        return [ids[number].as_py() for number in chosen]


def _free_card() -> None:
    """Hand back what a training in this process left reserved: the tool's is another."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def _run(argv: list[str], device: str, work: Path, progress: Progress) -> None:
    log, last = work / _LOG, deque[str](maxlen=200)
    process = subprocess.Popen(
        argv,
        env=_environment(device),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,  # with universal newlines, so that each state of a bar is a line
        errors="replace",
    )
    try:
        assert process.stdout is not None
        with process.stdout, log.open("w", buffering=1, encoding="utf-8") as kept:
            for line in process.stdout:
                kept.write(line)
                last.append(line.strip())
                if bar := _BAR.search(line):
                    part, parts, what = int(bar[1]), int(bar[2]), bar[3]
                    progress.step(part - (what != "Propagating"), parts, what.lower())
        status = process.wait()
    finally:
        process.kill()
        process.wait()
    if status != 0:
        message = f"llm-compressor ended with status {status}: {_reason(last)}"
        raise fail("export-failed", message, f"what it said is in {log}", path="exports")


def _reason(said: deque[str]) -> str:
    """The exception of a traceback, with what stands under it; else the last line."""
    lines = list(said)
    heads = [n for n, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    chosen = lines[heads[-1] :] if heads else lines[-1:]
    return " ".join(" ".join(chosen).split())[:600] or "it said nothing"


def _environment(device: str) -> dict[str, Any]:
    """Ours, with nothing to fetch and no card where the training had none."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    hidden = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **offline, **hidden, "TOKENIZERS_PARALLELISM": "false"}
