"""What watches a running training: progress, metrics on disk, and the guard against numbers gone wrong."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunebuild.errors import fail
from tunebuild.store import Progress

_KEPT = ("loss", "grad_norm", "learning_rate", "epoch", "eval_loss", "num_tokens")


class Watch(TrainerCallback):
    """Draws progress, appends metrics, stops on NaN.

    Args:
        metrics: JSONL file, one line a logged step; rewritten from the state on resume.
        progress: where to say how far it is.
    """

    def __init__(self, metrics: Path, progress: Progress) -> None:
        self._metrics = metrics
        self._progress = progress
        self._started = 0.0
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock; a resumed run keeps the history of the run before it."""
        self._started, self._first_step = time.monotonic(), state.global_step
        lines = [self._line(entry) for entry in state.log_history]
        self._metrics.write_text("".join(lines), "utf-8")
        if state.global_step:
            self._progress.say(f"going on from step {state.global_step} of {state.max_steps}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """One step's numbers: keep them, show them, and stop where they are not numbers."""
        logs = logs or {}
        if "loss" not in logs and "eval_loss" not in logs:
            return
        for name in ("loss", "grad_norm", "eval_loss"):
            if not math.isfinite(float(logs.get(name, 0.0))):
                raise fail(
                    "not-finite",
                    f"{name} is {logs[name]} at step {state.global_step}",
                    "lower tuning.learning_rate, or look at the rows of that step",
                    path="tuning.learning_rate",
                )
        with self._metrics.open("a", encoding="utf-8") as stream:
            stream.write(self._line({**logs, "step": state.global_step}))
        done = state.global_step - self._first_step
        speed = done / max(time.monotonic() - self._started, 1e-9)
        note = f"loss {logs['loss']:.3f}" if "loss" in logs else f"eval loss {logs['eval_loss']:.3f}"
        self._progress.step(state.global_step, state.max_steps, f"{note}, {speed:.1f} steps/s")

    @staticmethod
    def _line(entry: dict[str, Any]) -> str:
        kept = {"step": entry.get("step", 0), **{k: entry[k] for k in _KEPT if k in entry}}
        return json.dumps(kept) + "\n"
