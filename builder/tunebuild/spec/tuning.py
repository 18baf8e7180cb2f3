"""``tuning:`` and ``merge:`` - how the adapter is trained and folded into the weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunebuild.spec._base import Section


class LoraSpec(Section):
    """The low-rank adapter."""

    r: int = Field(default=16, ge=1, le=1024, examples=[16])
    """Rank."""

    alpha: int = Field(default=32, ge=1, examples=[32])
    """Scale of the update: it is multiplied by alpha / r, or alpha / sqrt(r) with `rslora`."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, examples=[0.0])
    """Dropout on the adapter's input. 0 is faster and is what most recipes for short runs use."""

    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        default="all-linear", examples=["all-linear", ["q_proj", "v_proj"]]
    )
    """Modules that get an adapter: `all-linear`, or module names."""

    rslora: bool = Field(default=False, examples=[False])
    """Scale by alpha / sqrt(r), which keeps the step size even at high ranks."""


class TuningSpec(Section):
    """Training."""

    method: Literal["qlora", "lora"] = Field(default="qlora", examples=["qlora"])
    """`qlora`: the base model is held in 4-bit NF4. `lora`: in its own precision."""

    lora: LoraSpec = Field(default_factory=LoraSpec, examples=[{"r": 16, "alpha": 32}])
    """The adapter."""

    epochs: float = Field(default=3, gt=0, examples=[3])
    """Passes over the training rows."""

    learning_rate: float = Field(default=2e-4, gt=0, examples=[2e-4])
    """Peak learning rate."""

    schedule: Literal["linear", "cosine", "constant"] = Field(default="linear", examples=["cosine"])
    """How the learning rate falls after the warm-up."""

    warmup_steps: int = Field(default=10, ge=0, examples=[10])
    """Steps over which the learning rate rises from 0."""

    batch_size: int = Field(default=8, ge=1, examples=[8])
    """Rows per optimizer step."""

    micro_batch_size: int | None = Field(default=None, ge=1, examples=[2])
    """Rows that pass through the model at once, which is what memory grows with; `batch_size` must be a
    multiple of it. All of them if left out."""

    max_length: int = Field(default=2048, ge=8, examples=[2048])
    """Longest row in tokens, prompt and answer together; see `data.on_long`."""

    weight_decay: float = Field(default=0.0, ge=0.0, examples=[0.0])
    """Weight decay of the optimizer."""

    max_grad_norm: float = Field(default=1.0, gt=0.0, examples=[1.0])
    """Gradients are clipped to this norm."""

    seed: int = Field(default=0, ge=0, le=2**32 - 1, examples=[0])
    """Seeds the adapter, the order of rows and the evaluation split."""

    compute_dtype: Literal["auto", "bfloat16", "float32"] = Field(default="auto", examples=["auto"])
    """Precision of matrix products. `auto` is bfloat16 where the hardware has it, else float32; the plan
    prints which, and the build records it."""


class MergeSpec(Section):
    """How the adapter becomes part of the weights."""

    strategy: Literal["auto", "original", "dequantized"] = Field(default="auto", examples=["auto"])
    """`original` adds the update to the published weights. `dequantized` adds it to the weights as the
    quantised training saw them. `auto` measures both against the trained model and keeps the closer; lora's
    base was never quantised, so there it is `original`."""
