"""Checkpoints that are either whole or not there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

from tunebuild.store import Progress, scan
from tunebuild.store.atomic import write_atomically

_SEAL = "sealed.json"
# What each process writes of itself: the state of its random numbers, and its part of what is split.
_OF_A_PROCESS = re.compile(r"rng_state_(\d+)\.pth|__(\d+)_\d+\.distcp")


class SealCheckpoints(TrainerCallback):
    """After each checkpoint, write the digests of its files; only sealed checkpoints are resumed from.

    Args:
        kept: how many stay. An older one goes when the newer is sealed: transformers would remove it before.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Seal the checkpoint that was just written, by all processes.

        Each digests what it wrote: on a shared volume, another machine may see it only later.
        """
        directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        mine = _written_by(args.process_index, directory)
        parts: list[dict[str, str]] = [{}] * args.world_size
        if args.world_size > 1:
            torch.distributed.gather_object(mine, parts if args.process_index == 0 else None)
        else:
            parts = [mine]
        if not state.is_world_process_zero:
            return
        digests = {name: digest for part in parts for name, digest in part.items()}
        write_atomically(directory / _SEAL, json.dumps(digests))
        rotate_checkpoints(args.output_dir, self._kept, state.best_model_checkpoint, use_mtime=True)


def latest_whole(directory: Path, progress: Progress) -> Path | None:
    """The newest checkpoint that holds all that was written; damaged ones are named and passed over.

    Where processes train together, all of them must call it, and all get what the first one finds.
    """
    if not torch.distributed.is_initialized():
        return _latest_whole(directory, progress)
    found = [None if torch.distributed.get_rank() else _latest_whole(directory, progress)]
    torch.distributed.broadcast_object_list(found)
    return found[0]


def _latest_whole(directory: Path, progress: Progress) -> Path | None:
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


def _written_by(process: int, directory: Path) -> dict[str, str]:
    """Digests of the files that a process wrote; the first one wrote all that do not name another.

    No other is looked at: who wrote it may not be done with it.
    """

    def is_mine(path: Path) -> bool:
        match = _OF_A_PROCESS.fullmatch(path.name)
        writer = int((match and (match[1] or match[2])) or 0)
        return writer == process and not path.name.endswith(_SEAL)

    return {f.path: f.digest for f in scan(directory, chosen=is_mine).files}


def _is_whole(directory: Path) -> bool:
    """Whether all that was sealed is there. A file that turned up later is none of it, and does no harm."""
    seal = directory / _SEAL
    if not seal.is_file():
        return False
    found = {f.path: f.digest for f in scan(directory).files}
    sealed: dict[str, str] = json.loads(seal.read_text("utf-8"))
    return sealed.items() <= found.items()
