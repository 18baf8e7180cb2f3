"""Which merges come into question for what was trained."""

from __future__ import annotations

from typing import Literal

from tunebuild.errors import fail
from tunebuild.spec.tuning import MergeSpec, TuningSpec

Strategy = Literal["original", "dequantized", "trained", "none"]


def strategies_for(merge: MergeSpec, tuning: TuningSpec) -> tuple[Strategy, ...]:
    """The merges that come into question, the likely one first.

    Args:
        merge: what the spec asks for.
        tuning: with its method decided.

    Raises:
        TunebuildError: ``strategy``: the spec asks for one that needs another method.
    """
    if tuning.method == "full":
        return ("trained",)
    if tuning.method == "peft":
        return ("none",)
    if merge.strategy != "auto":
        if merge.strategy == "dequantized" and tuning.method != "qlora":
            message = "'dequantized' needs a quantized base, and tuning.method: auto took lora here"
            raise fail("strategy", message, "use merge.strategy: auto", path="merge.strategy")
        return (merge.strategy,)
    if tuning.method != "qlora":
        return ("original",)  # what was not quantized cannot be dequantized
    # An adapter that began as what quantizing lost belongs to no other base.
    return ("dequantized",) if tuning.lora.init == "loftq" else ("dequantized", "original")
