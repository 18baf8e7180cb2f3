"""TRL's trainer over our micro-batches: what happens when memory runs out, and an exact evaluation."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from tunebuild.errors import fail
from tunebuild.prompt.example import IGNORED
from tunebuild.train.distributed.gradients import average_gradients
from tunebuild.train.distributed.sharding import split_on_cpu
from tunebuild.train.loop.exhausted import does_not_fit
from tunebuild.train.loop.rows import Inputs, PadRight, Rows, halves, pack
from tunebuild.train.model.head import call_head, head_unseen, trains_head
from tunebuild.train.plan.batches import Batching, Index, MicroBatches, share_of
from tunebuild.train.plan.lengths import lengths_of


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """A micro-batch that did not fit: in which step, and how many tokens were tried."""

    step: int
    tokens: int


class _Epochs(TrainerCallback):
    """Tells the micro-batches which epoch begins."""

    def __init__(self, micro_batches: MicroBatches) -> None:
        self._micro_batches = micro_batches

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._micro_batches.set_epoch(state.global_step // self._micro_batches.steps)


class Trainer(SFTTrainer):
    """Trains on micro-batches.

    Args:
        model: the model with its adapter.
        args: TRL's settings.
        rows: tokenized rows to train on.
        held_out: tokenized rows to evaluate on, if there are any.
        micro_batches: the rows of each micro-batch.
        max_tokens: of a micro-batch; one that has more is done in halves.
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
        micro_batches: MicroBatches,
        max_tokens: int,
        tokenizer: Any,
        callbacks: list[TrainerCallback],
    ) -> None:
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if pad_id is None:
            raise fail("no-pad", "the tokenizer has neither a padding nor an end token", path="model.base")
        self.micro_batches = micro_batches
        self.out_of_memory: list[OutOfMemory] = []
        # Where layers are gathered all processes go through them together, so none can do halves by itself.
        self._max_tokens = sys.maxsize if args.fsdp else max_tokens
        self._micro_batch_tokens = max_tokens
        self._step: int | None = None
        self._before: list[Inputs] = []  # earlier micro-batches of this step
        # What this process saw of this step: summed entropies, tokens that were right, supervised ones, all.
        self._seen = torch.zeros(4, dtype=torch.float64, device=args.device)
        through_head = trains_head(model)
        with head_unseen(model) if through_head else nullcontext():
            super().__init__(
                model=model,
                args=args,
                train_dataset=rows,
                eval_dataset=held_out,
                processing_class=tokenizer,
                data_collator=pack if micro_batches.packed else PadRight(int(pad_id)),
                callbacks=[*callbacks, _Epochs(self.micro_batches)],
            )
        if through_head:
            call_head(model.get_base_model())
        # Some models say that they take no count of the step's tokens; their loss is computed here, too.
        self.model_accepts_loss_kwargs = True

    def create_accelerator_and_postprocess(self) -> None:
        """Have accelerate split a model on CPUs, too, which it offers for cards only; and wrap no other.

        DDP would keep a second copy of all gradients, to sum them as they come. Here a step sums them once.
        """
        super().create_accelerator_and_postprocess()
        if not self.args.fsdp:
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        elif not self.is_fsdp_enabled:
            split_on_cpu(self.accelerator, self.args)
            self.is_fsdp_enabled: bool = True

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save what was trained.

        Right behind this, transformers takes a checkpoint for the best only if its directory is there, in
        each process for itself; where processes write a part each, none of them has made it yet.
        """
        Path(output_dir or self.args.output_dir).mkdir(parents=True, exist_ok=True)
        super().save_model(output_dir, _internal_call)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's micro-batches of an epoch."""
        return self._loader(self.train_dataset, self.micro_batches)

    def training_step(
        self, model: Any, inputs: Inputs, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward over one micro-batch; over its halves where memory runs out.

        The step's gradient stays the same, since each micro-batch adds its share of the step's tokens to it.
        After a failure the gradients are in an unknown state, so the step's earlier micro-batches run again.

        Data parallel processes exchange nothing before the last micro-batch of a step. So each of them halves
        what it has to, while the others wait.

        Raises:
            TunebuildError: one row alone does not fit, or a micro-batch of a sharded model.
        """
        if self._step != self.state.global_step:
            self._step, self._before = self.state.global_step, []
        try:
            loss = self._through(model, inputs, num_items_in_batch)
        except torch.OutOfMemoryError as error:
            if self.is_fsdp_enabled:
                tokens = inputs["input_ids"].numel()
                raise does_not_fit(f"a micro-batch of {tokens} tokens", "tuning.micro_batch_size") from error
            loss = None
        while loss is None:
            loss = self._again(model, inputs, num_items_in_batch)
        self._before.append(inputs)
        if self.is_in_train and self.accelerator.sync_gradients:
            if not self.is_fsdp_enabled:
                average_gradients(model.parameters(), self.args.world_size)
            self._count_step()
        return loss

    def compute_loss(
        self, model: Any, inputs: Inputs, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The loss of a micro-batch's tokens, as their share of the step's.

        TRL's own asks all processes for its metrics here, so they would have to do as many micro-batches.
        """
        options = {"output_router_logits": True} if self.aux_loss_enabled else {}
        outputs = model(**inputs, **options, use_cache=False, fused_lm_head=True)
        ids = inputs["input_ids"]
        tokens = inputs["attention_mask"].sum() if "attention_mask" in inputs else ids.new_tensor(ids.numel())
        counts = (outputs.entropy.detach().sum(), outputs.is_top1.sum(), outputs.label_mask.sum(), tokens)
        self._seen += torch.stack([count.double() for count in counts])
        # Gradients become a mean over processes, and the items are those of all of them.
        items = torch.as_tensor(num_items_in_batch).clamp(min=1)
        loss = -outputs.log_probs.sum() * self.args.world_size / items
        if self.aux_loss_enabled:
            weight = self.router_aux_loss_coef / self.current_gradient_accumulation_steps
            loss = loss + weight * outputs.aux_loss
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
        limit = max(self._micro_batch_tokens, int(lengths.max()))
        wide = _as_wide_as(limit, lengths, self.micro_batches.packed)
        turns = share_of(list(wide), self.args.process_index, self.args.world_size)
        training = self.model.training
        self.model.eval()
        totals = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for inputs in self._loader(rows, turns):
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
        """Run forward and backward once over the longest micro-batch allowed, and discard the gradients.

        Compiles the layers, and finds out before training whether the micro-batch fits in memory.

        Returns:
            Bytes at the peak, or ``None`` where the device does not say.
        """
        if self.args.device.type != "cuda" or self.is_fsdp_enabled:  # that one is split as training begins
            return None
        torch.cuda.reset_peak_memory_stats()
        rows = Rows(self.train_dataset)
        self.current_gradient_accumulation_steps = 1  # transformers sets it as training begins
        with torch.random.fork_rng(devices=[self.args.device]):
            longest = self.micro_batches.of_size(self._micro_batch_tokens)
            inputs = self.data_collator([rows[index] for index in longest])
            # Training finds it prepared. Without autocast this would try, and compile, another computation.
            model = self.accelerator.prepare_model(self.model)
            self.training_step(model, inputs, int((inputs["labels"] != IGNORED).sum()))
        self.model.zero_grad()
        self._seen.zero_()
        self._step = None
        return int(torch.cuda.max_memory_allocated())

    def _loader(self, rows: Dataset, micro_batches: MicroBatches | list[list[Index]]) -> DataLoader[Any]:
        return DataLoader(
            Rows(rows),
            batch_sampler=micro_batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _again(self, model: Any, inputs: Inputs, items: Any) -> torch.Tensor | None:
        """After a failure: halve what is done at once, and do the step so far again. ``None``: not enough."""
        pieces = [piece for one in (*self._before, inputs) for piece in self._pieces(one)]
        several = [piece for piece in pieces if halves(piece)]
        # Nobody knows which piece it was, so a single row is not to blame while another can be halved.
        tokens = max(piece["input_ids"].numel() for piece in several or pieces)
        self.out_of_memory.append(OutOfMemory(self.state.global_step, tokens))
        if not several:
            raise does_not_fit(f"a row of {tokens} tokens", "tuning.max_length")
        self._max_tokens = tokens // 2
        model.zero_grad()
        self._seen.zero_()
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
        losses = [super(Trainer, self).training_step(model, one, items) for one in self._pieces(inputs)]
        return torch.stack(losses).sum()

    def _count_step(self) -> None:
        """Hand TRL the metrics of a step, over all processes."""
        entropy, right, supervised, tokens = self.accelerator.reduce(self._seen, "sum").tolist()
        self._seen.zero_()
        self._metrics["train"]["entropy"].append(entropy / max(1, supervised))
        self._metrics["train"]["mean_token_accuracy"].append(right / max(1, supervised))
        # TRL's own count would begin anew in a training that goes on from a checkpoint.
        steps = (entry for entry in reversed(self.state.log_history) if "loss" in entry)
        before = next(steps, {"num_tokens": 0})["num_tokens"]
        self._metrics["train"]["num_tokens"] = [before + int(tokens)]

    def _pieces(self, inputs: Inputs) -> Iterator[Inputs]:
        if inputs["input_ids"].numel() > self._max_tokens:
            parts = halves(inputs)
            if parts is not None:
                for part in parts:
                    yield from self._pieces(part)
                return
        yield inputs


def _as_wide_as(limit: int, lengths: np.ndarray, packed: bool) -> MicroBatches:
    """All rows in as few micro-batches of at most so many tokens as are easily found."""
    count = max(1, -(-int(lengths.sum()) // limit))
    while True:
        micro_batches = MicroBatches(lengths, Batching(len(lengths), min(count, len(lengths)), packed, 0))
        if count >= len(lengths) or micro_batches.sizes(1).max() <= limit:
            return micro_batches
        count = -(-count * 5 // 4)


def of_all_processes(failures: list[OutOfMemory]) -> list[dict[str, int]]:
    """What ran out of memory, in each process, for ``memory.json``; all of them must call it."""
    return gather_object([asdict(failure) for failure in failures])
