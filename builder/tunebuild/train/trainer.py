"""TRL's trainer over our passes: what happens when memory runs out, and an exact evaluation."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from tunebuild.errors import fail
from tunebuild.train.batches import Batching, Passes
from tunebuild.train.lengths import lengths_of
from tunebuild.train.rows import Inputs, PadRight, Rows, halves, pack


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """A pass that did not fit: in which step, and how many tokens were tried."""

    step: int
    tokens: int


class _Epochs(TrainerCallback):
    """Tells the passes which epoch begins."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._passes.set_epoch(state.global_step // self._passes.steps)


class Trainer(SFTTrainer):
    """Trains on passes.

    Args:
        model: the model with its adapter.
        args: TRL's settings.
        rows: tokenised rows to train on.
        held_out: tokenised rows to evaluate on, if there are any.
        passes: the rows of each pass.
        most_tokens: in a pass; one that has more is done in halves.
        tokenizer: names the padding token.
        callbacks: the trainer's.
    """

    def __init__(
        self,
        *,
        model: Any,
        args: SFTConfig,
        rows: Dataset,
        held_out: Dataset | None,
        passes: Passes,
        most_tokens: int,
        tokenizer: Any,
        callbacks: list[TrainerCallback],
    ) -> None:
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if pad_id is None:
            raise fail("no-pad", "the tokenizer has neither a padding nor an end token", path="model.base")
        self.passes = passes
        self.out_of_memory: list[OutOfMemory] = []
        # Processes go forward and backward together, so one of them cannot do a pass in halves by itself.
        self._most_tokens = most_tokens if args.world_size == 1 else sys.maxsize
        self._pass_tokens = most_tokens
        self._step: int | None = None
        self._before: list[Inputs] = []  # earlier passes of this step
        super().__init__(
            model=model,
            args=args,
            train_dataset=rows,
            eval_dataset=held_out,
            processing_class=tokenizer,
            data_collator=pack if passes.packed else PadRight(int(pad_id)),
            callbacks=[*callbacks, _Epochs(self.passes)],
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's passes of an epoch."""
        return self._loader(self.train_dataset, self.passes)

    def training_step(
        self, model: Any, inputs: Inputs, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward over one pass; over its halves where memory runs out.

        The step's gradient stays the same, since each pass adds its share of the step's tokens to it. After a
        failure nobody knows what the gradients hold, so the passes that went before are done again, too.

        Raises:
            TunebuildError: one row alone does not fit.
        """
        if self._step != self.state.global_step:
            self._step, self._before = self.state.global_step, []
        try:
            loss = self._through(model, inputs, num_items_in_batch)
        except torch.OutOfMemoryError:
            if self.args.world_size > 1:
                raise  # the others wait in the middle of a pass
            loss = None
        while loss is None:
            loss = self._again(model, inputs, num_items_in_batch)
        self._before.append(inputs)
        return loss

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Mean loss over all supervised tokens that are held out, and the share of them that is predicted."""
        rows = self.eval_dataset
        lengths = lengths_of(rows.data.table.to_batches())
        limit = max(self._pass_tokens, int(lengths.max()))
        wide = _as_wide_as(limit, lengths, self.passes.packed)
        processes, index = self.args.world_size, self.args.process_index
        training = self.model.training
        self.model.eval()
        totals = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for number, inputs in enumerate(self._loader(rows, wide)):
                if number % processes == index:
                    outputs = self.model(**self._prepare_inputs(inputs), use_cache=False, fused_lm_head=True)
                    counts = (-outputs.log_probs.sum(), outputs.label_mask.sum(), outputs.is_top1.sum())
                    totals += torch.stack([count.double() for count in counts])
        loss, tokens, right = self.accelerator.reduce(totals, "sum").tolist()
        metrics = {
            f"{metric_key_prefix}_loss": loss / tokens,
            f"{metric_key_prefix}_mean_token_accuracy": right / tokens,
        }
        self.log(metrics)
        self.model.train(training)
        self.control: TrainerControl = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def probe(self) -> int | None:
        """Go forward and backward over as long a pass as there may be, once, and forget it.

        Compiles what is to be compiled, and finds out whether the pass fits before hours have gone.

        Returns:
            Bytes at the peak, or ``None`` where the device does not say.
        """
        if self.args.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats()
        rows = Rows(self.train_dataset)
        with torch.random.fork_rng(devices=[self.args.device]):
            inputs = self.data_collator([rows[index] for index in self.passes.of_size(self._pass_tokens)])
            self.training_step(self.model, inputs, int((inputs["labels"] != -100).sum()))
        self.model.zero_grad()
        self._metrics["train"].clear()
        self._total_train_tokens, self._step = 0, None
        return int(torch.cuda.max_memory_allocated())

    def _loader(self, rows: Dataset, passes: Passes) -> DataLoader[Any]:
        return DataLoader(
            Rows(rows),
            batch_sampler=passes,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _again(self, model: Any, inputs: Inputs, items: Any) -> torch.Tensor | None:
        """After a failure: halve what is done at once, and do the step so far again. ``None``: not enough."""
        pieces = [piece for one in (*self._before, inputs) for piece in self._pieces(one)]
        largest = max(pieces, key=lambda piece: piece["input_ids"].numel())
        tokens = largest["input_ids"].numel()
        self.out_of_memory.append(OutOfMemory(self.state.global_step, tokens))
        if halves(largest) is None:
            raise fail(
                "out-of-memory",
                f"a row of {tokens} tokens does not fit into the device's memory",
                "lower tuning.max_length, or use a larger device",
                path="tuning.max_length",
            )
        self._most_tokens = tokens // 2
        model.zero_grad()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            for earlier in self._before:
                self._through(model, earlier, items)
            return self._through(model, inputs, items)
        except torch.OutOfMemoryError:
            return None

    def _through(self, model: Any, inputs: Inputs, items: Any) -> torch.Tensor:
        losses = [super(Trainer, self).training_step(model, piece, items) for piece in self._pieces(inputs)]
        return torch.stack(losses).sum()

    def _pieces(self, inputs: Inputs) -> Iterator[Inputs]:
        if inputs["input_ids"].numel() > self._most_tokens:
            parts = halves(inputs)
            if parts is not None:
                for part in parts:
                    yield from self._pieces(part)
                return
        yield inputs


def _as_wide_as(limit: int, lengths: np.ndarray, packed: bool) -> Passes:
    """All rows in as few passes of at most so many tokens as are easily found."""
    count = max(1, -(-int(lengths.sum()) // limit))
    while True:
        passes = Passes(lengths, Batching(len(lengths), min(count, len(lengths)), packed, 0))
        if count >= len(lengths) or passes.sizes(1).max() <= limit:
            return passes
        count = -(-count * 5 // 4)


def as_json(failures: list[OutOfMemory]) -> list[dict[str, int]]:
    """For ``memory.json``."""
    return [asdict(failure) for failure in failures]
