"""Settings that tunebuild has no key for: whether it does the same anyway, or what follows.

The topics are those of :mod:`tunebuild.spec.foreign`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tunebuild.importers import _other_verdicts as other
from tunebuild.importers import _training_verdicts as training
from tunebuild.importers.work import Setting, Work, is_off
from tunebuild.spec.foreign import Meaning


def settle_topic(work: Work, setting: Setting, meaning: Meaning) -> None:
    """Settle a setting by the topic that it belongs to."""
    judge = _JUDGES.get(meaning.topic)
    if judge:
        judge(work, setting, meaning)
    else:
        work.ledger.same(setting.key, meaning.hint.removeprefix("not a setting: "))


def _off_or_lost(consequence: str, todo: str) -> Callable[[Work, Setting, Meaning], None]:
    def judge(work: Work, setting: Setting, meaning: Meaning) -> None:
        if is_off(setting.value):
            work.ledger.same(setting.key, "off here as well")
        else:
            work.ledger.lost(setting.key, consequence, todo)

    return judge


_LOSS_TODO = "nothing, or compare the held-out loss; the loss has no such term"
_JUDGES: Mapping[str, Callable[[Work, Setting, Meaning], None]] = {
    "precision": training.precision,
    "quantization": training.bits,
    "optimizer": training.optimizer,
    "kernels": training.kernels,
    "supervision": training.supervision,
    "evaluations": other.evaluations,
    "keep-best": other.best,
    "checkpoints": other.checkpoints,
    "preparation": other.preparation,
    "tracking": other.tracking,
    "logging": other.logging,
    "special-tokens": other.tokens,
    "output": other.output,
    "merge": other.merge,
    "started-adapter": other.started,
    "whole-modules": training.modules,
    "remote-code": other.remote,
    "bias": training.bias,
    "media": _off_or_lost(
        "rows are text, and the text part of a multimodal model is tuned; images, video and "
        "audio are not read",
        "import it for its text rows alone, or keep to the other tool",
    ),
    "other-bits": _off_or_lost(
        "weights are trained in 16 or 32 bits, or as an adapter of a base in NF4",
        "see tuning.method; for a quantized result, see exports in docs/exports.md",
    ),
    "quantization-8": _off_or_lost(
        "no base is held in 8 bits while training", "choose qlora (4 bits) or lora (16 bits) in tuning.method"
    ),
    "row-form": _off_or_lost(
        "rows are printed by prompt.template, and what they hold is said by data.train[].format",
        "look whether what is written there is what was meant",
    ),
    "parallel": training.parallel,
    "loss": _off_or_lost("the loss is the plain cross-entropy of the answers", _LOSS_TODO),
    "preferences": training.preferences,
}
