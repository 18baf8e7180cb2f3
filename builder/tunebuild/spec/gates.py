"""``gates:`` - what a build must reach before there is an image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunebuild.spec.section import Section


class DivergenceAtMost(Section):
    """An upper limit of a divergence."""

    max: float = Field(ge=0, examples=[0.05])
    """The highest value that passes, in nats."""


class LossAtMost(Section):
    """An upper limit of a loss."""

    max: float = Field(ge=0, examples=[1.2])
    """The highest value that passes, in nats a token."""


class PerplexityAtMost(Section):
    """An upper limit of a perplexity."""

    max: float = Field(ge=1, examples=[5])
    """The highest value that passes; 1 is a model that is always sure and right."""


class ShareAtMost(Section):
    """An upper limit of a share."""

    max: float = Field(ge=0, le=1, examples=[0.2])
    """The highest value that passes, between 0 and 1."""


class LostAtMost(Section):
    """An upper limit of the share of the training that the merge lost."""

    max: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(default="auto", examples=[0.2])
    """The highest value that passes, between 0 and 1. `auto` follows strategy and training: 0.05, or what
    rounding to 16 bits may take of a light training (0.03 nats, at most 0.5); 0.5 where `original` was asked
    for after `qlora`."""


class ShareAtLeast(Section):
    """A lower limit of a share."""

    min: float = Field(ge=0, le=1, examples=[0.9])
    """The lowest value that passes, between 0 and 1."""


class Bounds(Section):
    """Limits of a task's figure."""

    min: float | None = Field(default=None, examples=[0.6])
    """The lowest value that passes."""

    max: float | None = Field(default=None, examples=[20])
    """The highest value that passes."""


class GatesSpec(Section):
    """Limits. A build that is beyond one ends with status 3 and makes no image. Figures of held-out rows
    are of at most 64 of them, evenly spread; of training rows if none are held out."""

    merge_kl: DivergenceAtMost | None = Field(default=DivergenceAtMost(max=0.1), examples=[{"max": 0.02}])
    """Divergence of the merged model from the trained one on held-out rows, in nats a token."""

    merge_lost: LostAtMost | None = Field(default=LostAtMost(), examples=[{"max": 0.2}])
    """That divergence as a share of what training changed: 0 is a perfect merge, 1 is the base."""

    merge_top1: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.95}])
    """Share of tokens at which merged and trained model prefer the same one."""

    eval_loss: LossAtMost | None = Field(default=None, examples=[{"max": 1.2}])
    """Loss of the merged model on held-out rows."""

    eval_accuracy: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.6}])
    """Share of held-out answers' tokens that the merged model puts first."""

    eval_perplexity: PerplexityAtMost | None = Field(default=None, examples=[{"max": 5}])
    """Perplexity of the merged model on held-out rows."""

    exact_match: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.9}])
    """Share of written answers that are what was expected, word for word. See `evaluation.samples`."""

    token_f1: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.8}])
    """Words that written and expected answers share, as SQuAD counts them: 1 is all."""

    rouge_l: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.7}])
    """ROUGE-L of written answers: 1 is the expected order of words."""

    regression_kl: DivergenceAtMost | None = Field(default=None, examples=[{"max": 1.5}])
    """Divergence of the merged model from the base where the base answers general prompts, in nats."""

    regression_top1: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.5}])
    """Share of the base's tokens there that the merged model would write, too."""

    tasks: dict[str, dict[str, Bounds]] = Field(
        default_factory=dict, examples=[{"arc_easy": {"acc": {"min": 0.6}}}]
    )
    """Figures of the tuned model in `evaluation.tasks`, by task and by metric as lm-eval names it. One that
    comes out of a filter has that behind a comma, as in `exact_match,strict-match`."""
