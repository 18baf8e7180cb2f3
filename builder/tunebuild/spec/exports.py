"""``exports:`` - the merged model quantized, for other servers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunebuild.spec.gates import DivergenceAtMost, LossAtMost, PerplexityAtMost, ShareAtLeast, ShareAtMost
from tunebuild.spec.section import Section


class ExportGates(Section):
    """Limits of one export. The figures are those of `gates`, measured for the exported files on the same
    rows."""

    kl: DivergenceAtMost | None = Field(default=DivergenceAtMost(max=0.1), examples=[{"max": 0.05}])
    """Divergence of the exported model from the trained one, in nats a token, as `gates.merge_kl`, which has
    the same default. Small models lose more in 4 bits than large ones."""

    lost: ShareAtMost | None = Field(default=ShareAtMost(max=0.5), examples=[{"max": 0.3}])
    """That divergence as a share of what training changed: 0 is the trained model, 1 is as far from it as the
    base."""

    top1: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.9}])
    """Share of positions at which exported and trained model predict the same token."""

    eval_loss: LossAtMost | None = Field(default=None, examples=[{"max": 1.3}])
    """Loss of the exported model on held-out rows."""

    eval_accuracy: ShareAtLeast | None = Field(default=None, examples=[{"min": 0.6}])
    """Share of the held-out answers' tokens that the exported model predicts (top 1)."""

    eval_perplexity: PerplexityAtMost | None = Field(default=None, examples=[{"max": 6}])
    """Perplexity of the exported model on held-out rows."""


class ExportSpec(Section):
    """One export. `tunebuild export` makes it; a build does not."""

    format: Literal["gptq", "awq"] = Field(examples=["gptq"])
    """`gptq` rounds the weights one by one, and later weights compensate for the error of earlier ones. `awq`
    scales the weights that matter most for the activations before it rounds. Both quantize weights only:
    activations stay in 16 bits."""

    bits: Literal[4, 8] = Field(default=4, examples=[4])
    """Bits of a weight: W4A16 or W8A16. Embeddings, norms and the output layer stay as they are."""

    group_size: Literal[32, 64, 128] = Field(default=128, examples=[128])
    """How many weights of a row share a scale. A smaller group is more accurate and takes more space. The
    size must divide the width of each layer."""

    samples: int = Field(default=256, ge=1, le=4096, examples=[256])
    """Number of calibration rows, sampled from the training rows with `tuning.seed` and passed as the token
    ids that were trained on. All of them if there are fewer."""

    gates: ExportGates = Field(default_factory=ExportGates, examples=[{"kl": {"max": 0.05}}])
    """Limits that this export must meet before anything is written."""

    @property
    def name(self) -> str:
        """What its folder is called."""
        return f"{self.format}-w{self.bits}a16-g{self.group_size}"
