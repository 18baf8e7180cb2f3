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
    """The highest value that passes; 1 means that the model is always certain and right."""


class ShareAtMost(Section):
    """An upper limit of a share."""

    max: float = Field(ge=0, le=1, examples=[0.2])
    """The highest value that passes, between 0 and 1."""


class LostAtMost(Section):
    """An upper limit of the share of the training that the merge lost."""

    max: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(default="auto", examples=[0.2])
    """The highest value that passes, between 0 and 1. `auto` depends on strategy and training: 0.05; for a
    light training more, up to 0.5, since rounding to 16 bits may cost 0.03 nats; 0.5 if `original` is
    requested after `qlora`."""


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
    """Limits. A build that exceeds one ends with status 3 and makes no image. Figures on held-out rows use at
    most 64 of them, evenly spread, or training rows if none are held out."""

    merge_kl: DivergenceAtMost | None = Field(default=DivergenceAtMost(max=0.1), examples=[{"max": 0.02}])
    """Divergence of the merged model from the trained one on held-out rows, in nats a token."""

    merge_lost: LostAtMost | None = Field(default=LostAtMost(), examples=[{"max": 0.2}])
    """That divergence as a share of what training changed: 0 is a perfect merge, 1 is the base."""

    merge_top1: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.95}])
    """Share of positions at which merged and trained model predict the same token."""

    eval_loss: LossAtMost | None = Field(default=None, examples=[{"max": 1.2}])
    """Loss of the merged model on held-out rows."""

    eval_accuracy: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.6}])
    """Share of the held-out answers' tokens that the merged model predicts (top 1)."""

    eval_perplexity: PerplexityAtMost | None = Field(default=None, examples=[{"max": 5}])
    """Perplexity of the merged model on held-out rows."""

    exact_match: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.9}])
    """Share of written answers that match the expected answer word for word. See `evaluation.samples`."""

    token_f1: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.8}])
    """Token F1 of written and expected answers, as in SQuAD: 1 is all words."""

    rouge_l: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.7}])
    """ROUGE-L of written answers; 1 is the same words in the same order."""

    regression_kl: DivergenceAtMost | None = Field(default=None, examples=[{"max": 1.5}])
    """Divergence of the merged model from the base on the base's answers to general prompts, in nats."""

    regression_top1: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.5}])
    """Share of the tokens in those answers that the merged model also predicts."""

    tasks: dict[str, dict[str, Bounds]] = Field(
        default_factory=dict, examples=[{"arc_easy": {"acc": {"min": 0.6}}}]
    )
    """Figures of the tuned model in `evaluation.tasks`, by task and by metric as lm-eval names it. If a
    metric comes from a filter, the filter's name follows after a comma, as in `exact_match,strict-match`."""
