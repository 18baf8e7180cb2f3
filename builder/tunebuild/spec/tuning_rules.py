"""Rules of the tuning: a step can be shared out, and what is trained suits the base and the merge."""

from __future__ import annotations

from collections.abc import Iterator

from tunebuild.errors import Diagnostic
from tunebuild.spec.folder import Folder
from tunebuild.spec.spec import Spec
from tunebuild.spec.tuning import LoraSpec


def batch_divides(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """Rows per step divide evenly into pieces."""
    tuning = spec.tuning
    if tuning.micro_batch_size and tuning.batch_size % tuning.micro_batch_size:
        yield Diagnostic(
            "batch",
            f"batch_size {tuning.batch_size} is not a multiple of micro_batch_size {tuning.micro_batch_size}",
            "",
            "tuning.micro_batch_size",
        )


def warmup_is_said_once(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """The warm-up is a number of steps, or a share of all."""
    tuning, path = spec.tuning, "tuning.warmup_ratio"
    if tuning.warmup_ratio is not None and tuning.warmup_steps is not None:
        yield Diagnostic("warmup", "is set together with warmup_steps", "remove one of them", path)


def processes_have_rows(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """Processes have rows of a step to share."""
    tuning = spec.tuning
    if (count := tuning.nodes * tuning.processes) > tuning.batch_size:
        message = f"{count} processes cannot share a step of {tuning.batch_size} rows"
        path = "tuning.processes" if tuning.nodes == 1 else "tuning.nodes"
        yield Diagnostic("processes", message, "raise tuning.batch_size", path)


def shards_have_processes(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """What is split is split over several processes, and is made of tensors that can be."""
    tuning, path = spec.tuning, "tuning.shard"
    if not tuning.shard:
        return
    if tuning.nodes * tuning.processes == 1:
        message = "one process has nothing to split"
        yield Diagnostic("shard", message, "raise tuning.processes or tuning.nodes", path)
    if tuning.method not in ("lora", "full"):
        message = f"needs tuning.method lora or full, not {tuning.method}"
        yield Diagnostic("shard", message, "say which, or remove it", path)


def full_has_no_adapter(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """Where all weights are trained there is no adapter, and nothing to merge it into."""
    if spec.tuning.method != "full":
        return
    if spec.tuning.lora != LoraSpec():
        yield Diagnostic("no-adapter", "method full trains no adapter", "remove it", "tuning.lora")
    if spec.merge.strategy in ("original", "none"):
        message = "method full has no adapter to merge"
        yield Diagnostic("strategy", message, "leave it at auto", "merge.strategy")


def peft_says_which(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """``method: peft`` names a family, no other method has one, and what it trains stays beside the base."""
    tuning = spec.tuning
    if tuning.method != "peft":
        if tuning.peft is not None:
            yield Diagnostic("peft", f"method {tuning.method} trains none", "use method: peft", "tuning.peft")
        return
    if tuning.peft is None:
        yield Diagnostic("peft", "method peft needs a type", "add peft: {type: ia3}", "tuning.method")
    if tuning.lora != LoraSpec():
        yield Diagnostic("no-adapter", "method peft trains no LoRA", "remove it", "tuning.lora")
    if spec.merge.strategy not in ("auto", "none"):
        message = "what method peft trains is served beside the base, not merged"
        yield Diagnostic("strategy", message, "leave it at auto", "merge.strategy")


def new_tokens_are_trained(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """Each new control token is there once, and the training has rows of its own for it."""
    tokens, tuning = spec.prompt.new_tokens, spec.tuning
    for place, token in enumerate(tokens):
        if token in tokens[:place]:
            path = f"prompt.new_tokens[{place}]"
            yield Diagnostic("new-tokens", f"'{token}' is there twice", "take one out", path)
    if not tokens:
        return
    if tuning.method == "peft":
        hint = "use lora or qlora"
        yield Diagnostic("new-tokens", "method peft trains no new tokens", hint, "tuning.method")
    if tuning.shard and tuning.method != "full":
        message = "rows of new tokens cannot be split over processes"
        yield Diagnostic("new-tokens", message, "leave out tuning.shard", "tuning.shard")


def dequantized_needs_qlora(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """Only a quantized base can be dequantized."""
    if spec.merge.strategy == "dequantized" and spec.tuning.method not in ("qlora", "auto"):
        yield Diagnostic(
            "strategy",
            f"'dequantized' needs tuning.method qlora, not {spec.tuning.method}",
            "use merge.strategy: auto",
            "merge.strategy",
        )


def init_suits_the_base(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """First values that come from the base's weights need them as they are, and a merge that knows them."""
    init, path = spec.tuning.lora.init, "tuning.lora.init"
    if init in ("default", "gaussian", "orthogonal"):
        return
    wanted = "qlora" if init == "loftq" else "lora"
    if spec.tuning.method not in (wanted, "auto"):
        message = f"'{init}' needs tuning.method {wanted}, not {spec.tuning.method}"
        yield Diagnostic("init", message, "use another init", path)
    if spec.tuning.lora.dora:
        yield Diagnostic("init", f"'{init}' does not go with dora", "use one of them", path)
    if init == "loftq" and spec.merge.strategy not in ("auto", "dequantized"):
        message = f"'{spec.merge.strategy}' is wrong for loftq: its adapter belongs to the quantized base"
        yield Diagnostic("strategy", message, "use merge.strategy: auto", "merge.strategy")
