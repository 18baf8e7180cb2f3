"""How long and in what steps a tool trains: epochs, steps, rows of a step, warm-up."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunebuild.importers.rows import rows_to_train_on
from tunebuild.importers.work import Setting, Work, is_off, plain_number, shown

_MICRO = ("micro_batch_size", "per_device_train_batch_size", "per_gpu_train_batch_size")
_ACCUMULATION = ("gradient_accumulation_steps", "gradient_accumulation")
_EPOCHS = ("num_epochs", "num_train_epochs", "epochs")
_LENGTHS = ("sequence_len", "cutoff_len", "max_length", "max_seq_length")
_PACKING = ("sample_packing", "packing", "neat_packing", "packed")
#: Other tools' schedules -> ours.
_SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}


@dataclass(frozen=True, slots=True)
class _Step:
    """What one step is trained on: ``count`` rows, or packs of up to ``tokens`` tokens."""

    count: int
    tokens: int | None = None

    def seen(self, steps: int) -> str:
        """What that many of them have seen, in words."""
        if self.tokens is None:
            return f"{steps} steps of {self.count} rows are {steps * self.count:,} rows"
        seen = steps * self.count * self.tokens
        return f"{steps} steps of {self.count} packs of up to {self.tokens:,} tokens are {seen:,} tokens"

    def advice(self, steps: int) -> str:
        """What to do where nobody knows how many rows there are."""
        seen = f"{steps * self.count * (self.tokens or 1):,} divided by the number of"
        kind = "rows" if self.tokens is None else "tokens of all rows"
        return f"set tuning.epochs to {seen} {kind}, which 'tunebuild data' prints"


def carry_steps(work: Work) -> None:
    """Carry the rows of a step, the length of the training and the warm-up."""
    step = _carry_rows(work)
    _carry_length(work, step)
    schedule = _carry_schedule(work)
    _carry_warmup(work, schedule)


def _carry_rows(work: Work) -> _Step:
    """``tuning.batch_size``: all rows of a step, whatever the pieces that it is computed in."""
    path, defaults = "tuning.batch_size", work.defaults
    micro, pieces = work.number(*_MICRO), work.number(*_ACCUMULATION)
    whole = work.number("batch_size", "train_batch_size", "global_batch_size", "total_batch_size")
    if whole and not pieces:
        rows = max(1, int(whole[1]))
        work.ledger.carried(whole[0].key, path)
        if micro:
            work.ledger.same(micro[0].key, "a step is cut into pieces as the memory plan decides")
        work.draft.set(path, rows)
        return _carry_packing(work, rows)
    if whole and pieces:
        work.ledger.same(whole[0].key, f"{pieces[0].name} takes precedence in {work.tool}")
    at_once = max(1, int(micro[1])) if micro else defaults.rows_at_once
    times = max(1, int(pieces[1])) if pieces else defaults.accumulation
    gpus = _processes(work)
    rows = at_once * times * gpus
    for found in (micro, pieces):
        if found:
            work.ledger.carried(found[0].key, path, f"{at_once} x {times}")
    own = "" if micro and pieces else f" ({work.tool}'s defaults where it is silent)"
    where = f"on {gpus} GPUs." if gpus > 1 else "on one GPU; on N GPUs it was N times as many."
    comment = f"{at_once} at once x {times} accumulated{own}, {where}"
    work.draft.set(path, rows, comment)
    return _carry_packing(work, rows)


def _processes(work: Work) -> int:
    """GPUs that share a step, where the configuration says it; what says so is carried later."""
    alike = work.number("nproc_per_node", "num_processes", "num_gpus", "n_gpu")
    nodes = work.number("nnodes", "num_nodes", "num_machines")
    of_one = max(1, int(alike[1])) if alike else 1
    return of_one * (max(1, int(nodes[1])) if nodes else 1)


def _carry_packing(work: Work, rows: int) -> _Step:
    step = _Step(rows)
    for packing in (work.find(name) for name in _PACKING):
        if packing is None:
            continue
        if is_off(packing.value):
            reason = "packing here keeps a step's rows, which never see each other; it is only faster"
            work.ledger.same(packing.key, reason)
            continue
        if step.tokens is not None:
            work.ledger.carried(packing.key, "tuning.packing", "rows of a pack never see each other")
            continue
        length = work.number(*_LENGTHS)
        step = _Step(rows, int(length[1] if length else work.defaults.max_length))
        tokens = rows * (step.tokens or 1)
        work.draft.set("tuning.packing", True)
        work.ledger.lost(
            packing.key,
            f"a step of {work.tool} is {rows} full packs, up to {tokens:,} tokens; here it is {rows} rows, "
            "which are packed as well but may be far fewer tokens",
            f"set tuning.batch_size to {tokens:,} divided by the tokens of an average row, which "
            "'tunebuild data' prints",
        )
        work.draft.remark("tuning.batch_size", f"{work.tool} packs: its steps were {rows} packs, not rows.")
    return step


def _carry_length(work: Work, step: _Step) -> None:
    """``tuning.epochs``, which a number of steps is turned into if somebody can count the rows."""
    path, defaults = "tuning.epochs", work.defaults
    limit, epochs = work.number("max_steps"), work.number(*_EPOCHS)
    if limit and limit[1] <= 0:
        work.ledger.same(limit[0].key, "no limit: epochs decide")
        limit = None
    steps = int(limit[1]) if limit else None
    if limit is None and epochs is None:
        steps = defaults.max_steps
    if steps is None:
        passes = epochs[1] if epochs and epochs[1] > 0 else defaults.epochs
        if epochs and epochs[1] > 0:
            work.ledger.carried(epochs[0].key, path)
        elif epochs:
            text = f"{epochs[1]:g} epochs train nothing; {work.tool}'s default is written"
            work.ledger.lost(epochs[0].key, text, f"set {path}")
        work.draft.set(path, plain_number(passes), "" if epochs else f"{work.tool}'s default.")
        return
    if epochs:
        work.ledger.same(epochs[0].key, f"max_steps takes precedence in {work.tool}")
    rows = rows_to_train_on(work) if step.tokens is None else None
    if rows:
        # Rounded down: what is left over of an epoch is one step more.
        passes = max(1, int(steps / math.ceil(rows / step.count) * 1e6)) / 1e6
        work.draft.set(path, plain_number(passes), f"{step.seen(steps)}, of {rows:,} counted.")
        if limit:
            work.ledger.carried(limit[0].key, path, f"{step.seen(steps)}, of {rows:,} counted")
        return
    if limit:
        text = f"{step.seen(steps)}; tunebuild counts epochs, and 1 is written"
        work.ledger.lost(limit[0].key, text, step.advice(steps))
    else:
        text = f"{work.tool} stops after {steps} steps by default: {step.seen(steps)}; {step.advice(steps)}"
        work.note(text, attention=True)
    work.draft.set(path, 1, f"A guess: {step.seen(steps)}.")


def _carry_schedule(work: Work) -> str:
    path, found = "tuning.schedule", work.find("lr_scheduler_type", "lr_scheduler", "scheduler")
    name = str(found.value).lower().removeprefix("schedulertype.") if found else work.defaults.schedule
    ours = _SCHEDULES.get(name)
    if found is None:
        work.draft.set(path, ours, f"{work.tool}'s default.")
    elif ours:
        work.draft.set(path, ours)
        work.ledger.carried(found.key, path)
    else:
        near = "cosine" if any(part in name for part in ("cos", "rex", "one")) else "linear"
        work.draft.set(path, near, f"In place of {name}.")
        text = (
            f"there is no schedule {shown(found.value)}; {near} is written, which falls to 0 without restarts"
        )
        work.ledger.lost(found.key, text, "compare the loss curves, or choose linear, cosine or constant")
    return name


def _carry_warmup(work: Work, schedule: str) -> None:
    path, defaults = "tuning.warmup_steps", work.defaults
    fixed = work.number("warmup_steps", "num_warmup_steps", "lr_warmup_steps")
    share = work.number("warmup_ratio")
    if schedule == "constant":
        for found in (fixed, share):
            if found:
                work.ledger.same(found[0].key, f"the constant schedule of {work.tool} has no warm-up")
        work.draft.set(path, 0)
        return
    if fixed and share:
        first = fixed[1] > 0 or defaults.steps_first
        loser, winner = (share, fixed) if first else (fixed, share)
        work.ledger.same(loser[0].key, f"{winner[0].name} takes precedence in {work.tool}")
        fixed, share = (fixed, None) if first else (None, share)
    if fixed and 0 < fixed[1] < 1:  # transformers 5 takes that for a share
        fixed, share = None, fixed
    if fixed:
        work.draft.set(path, max(0, int(fixed[1])))
        work.ledger.carried(fixed[0].key, path)
    elif share:
        _carry_share(work, *share)
    elif defaults.warmup_ratio is not None:
        work.draft.set("tuning.warmup_ratio", defaults.warmup_ratio, f"{work.tool}'s default.")
    else:
        work.draft.set(path, defaults.warmup_steps, f"{work.tool}'s default.")


def _carry_share(work: Work, setting: Setting, share: float) -> None:
    path = "tuning.warmup_ratio"
    if share >= 1:
        text = f"a share of {share:g} would be the whole training"
        work.ledger.lost(setting.key, text, f"set {path} to a share below 1, or tuning.warmup_steps")
        return
    work.draft.set(path, max(0.0, float(share)))
    work.ledger.carried(setting.key, path)
