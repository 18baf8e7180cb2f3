"""Checkpoints that are either whole or not there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunebuild.store import Progress, scan

_SEAL = "sealed.json"


class SealCheckpoints(TrainerCallback):
    """After each checkpoint, write the digests of its files; only sealed checkpoints are resumed from."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seal the checkpoint that was just written, by all processes."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if not state.is_world_process_zero:
            return
        directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        digests = {f.path: f.digest for f in scan(directory).files}
        temporary = directory / f".{_SEAL}"
        temporary.write_text(json.dumps(digests), "utf-8")
        temporary.replace(directory / _SEAL)


def latest_whole(directory: Path, progress: Progress) -> Path | None:
    """The newest checkpoint that is exactly what was written; damaged ones are named and passed over."""
    numbered = [
        (int(match[1]), path)
        for path in directory.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    ]
    for _, path in sorted(numbered, reverse=True):
        if _is_whole(path):
            return path
        progress.say(f"{path.name} was cut short and is not used")
    return None


def _is_whole(directory: Path) -> bool:
    seal = directory / _SEAL
    if not seal.is_file():
        return False
    found = {f.path: f.digest for f in scan(directory).files if f.path != _SEAL}
    sealed: dict[str, str] = json.loads(seal.read_text("utf-8"))
    return found == sealed
