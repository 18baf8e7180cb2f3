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
from tunebuild.train.plan.batches import MicroBatches
from tunebuild.train.plan.speed import Limit

_KEPT = (
    "loss", "grad_norm", "learning_rate", "epoch", "mean_token_accuracy", "eval_loss",
    "eval_mean_token_accuracy", "num_tokens", "tokens_per_second",
)  # fmt: skip


class Watch(TrainerCallback):
    """Draws progress, appends metrics, stops on NaN.

    Args:
        metrics: JSONL file, one line a logged step; rewritten from the state on resume.
        progress: where to say how far it is.
        micro_batches: know the rows of a step.
        limit: what the device could do at best, if that is known.
    """

    def __init__(
        self, metrics: Path, progress: Progress, micro_batches: MicroBatches, limit: Limit | None
    ) -> None:
        self._metrics = metrics
        self._progress = progress
        self._micro_batches = micro_batches
        self._limit = limit
        self._before = (0.0, 0.0)  # when the last step was logged, and the tokens until then

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock; a resumed run keeps the history of the run before it."""
        lines = [self._line(entry) for entry in state.log_history]
        if state.is_world_process_zero:
            self._metrics.write_text("".join(lines), "utf-8")
        self._before = (time.monotonic(), 0.0)
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
                found = self._micro_batches.rows_of(state.global_step - 1)
                rows = ", ".join(str(row + 1) for row in found[:20])
                made_of = "" if name == "eval_loss" else f", made of rows {rows} of train.arrow"
                raise fail(
                    "not-finite",
                    f"{name} is {logs[name]} at step {state.global_step}{made_of}",
                    "lower tuning.learning_rate, or look at those rows",
                    path="tuning.learning_rate",
                )
        note = f"eval loss {logs['eval_loss']:.3f}" if "eval_loss" in logs else f"loss {logs['loss']:.3f}"
        if speed := self._speed(logs):
            # Into the state, too, from which a resumed training writes the lines of its first steps.
            logs["tokens_per_second"] = state.log_history[-1]["tokens_per_second"] = round(speed, 1)
            note += f", {speed:,.0f} tokens/s"
            if self._limit:
                note += f" ({self._limit.share(speed):.0%} of the limit)"
        if state.is_world_process_zero:
            with self._metrics.open("a", encoding="utf-8") as stream:
                stream.write(self._line({**logs, "step": state.global_step}))
        self._progress.step(state.global_step, state.max_steps, note)

    def _speed(self, logs: dict[str, Any]) -> float | None:
        """Tokens a second since the step before; nothing for what is no step, and for the first."""
        now = time.monotonic()
        if "num_tokens" not in logs or "loss" not in logs:
            self._before = (now, self._before[1])
            return None
        seconds, tokens = now - self._before[0], logs["num_tokens"] - self._before[1]
        first, self._before = not self._before[1], (now, logs["num_tokens"])
        return None if first else tokens / max(seconds, 1e-9)

    @staticmethod
    def _line(entry: dict[str, Any]) -> str:
        kept = {"step": entry.get("step", 0), **{k: entry[k] for k in _KEPT if k in entry}}
        return json.dumps(kept) + "\n"
