"""``tuning:`` and ``merge:`` - how the adapter is trained and merged into the weights."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from tunebuild.spec.section import Section


class LoraSpec(Section):
    """The low-rank adapter."""

    r: int = Field(default=16, ge=1, le=1024, examples=[16])
    """Rank."""

    alpha: int = Field(default=32, ge=1, examples=[32])
    """Scale of the update: it is multiplied by alpha / r, or alpha / sqrt(r) with `rslora`."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, examples=[0.0])
    """Dropout on the adapter's input. 0 is faster and is what most recipes for short runs use."""

    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        default="all-linear", examples=["all-linear", ["q_proj", "v_proj"], ["q_proj", "lm_head"]]
    )
    """Modules that get an adapter: `all-linear`, which excludes embedding and head, or module names, which
    may include those two. If the base ties them, naming one of them gives both the same adapter."""

    rslora: bool = Field(default=False, examples=[False])
    """Scale by alpha / sqrt(r), which keeps the step size stable at high ranks."""

    dora: bool = Field(default=False, examples=[False])
    """Train each weight's magnitude separately from its direction (DoRA). Slower, since it has no fused
    layer."""

    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora", "loftq"] = Field(
        default="default", examples=["pissa"]
    )
    """How the adapter is initialized. `default`, `gaussian` and `orthogonal` are random and start as no
    change. `pissa` and `olora` start from the base's own largest directions, which often converges faster.
    They save the difference, at twice the rank, and need the base in 16 bits. `loftq` starts from the
    quantization error of NF4; it needs `qlora`."""


class PeftSpec(Section):
    """An adapter of another family than LoRA."""

    type: Literal["ia3", "prefix_tuning", "prompt_tuning"] = Field(examples=["ia3"])
    """`ia3` scales what keys, values and the MLP compute. `prefix_tuning` puts trained keys and values before
    each row, in every layer; `prompt_tuning` puts trained embeddings before it."""

    virtual_tokens: int = Field(default=20, ge=1, le=1000, examples=[20])
    """How many tokens `prefix_tuning` and `prompt_tuning` put before each row. The row has that many fewer
    positions."""


class MemoryFit(Section):
    """A bound on the device's memory."""

    fit: str = Field(pattern=r"^[0-9]+(\.[0-9]+)?\s*([MG]i?B)$", examples=["24GB"])
    """Most that training may take on the device, such as `24GB`, `24GiB` or `800MB`."""

    @property
    def bytes(self) -> int:
        """The bound in bytes."""
        number, unit = re.fullmatch(r"([0-9.]+)\s*(\w+)", self.fit).groups()  # type: ignore[union-attr]
        return int(float(number) * {"MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}[unit])


class EarlyStopping(Section):
    """When to stop before the last epoch."""

    patience: int = Field(default=3, ge=1, examples=[3])
    """Evaluations in a row without a better loss on held-out rows."""

    min_delta: float = Field(default=0.0, ge=0.0, examples=[0.01])
    """How much smaller a loss must be to count as better."""


class TuningSpec(Section):
    """Training."""

    method: Literal["auto", "qlora", "lora", "full", "peft"] = Field(default="qlora", examples=["qlora"])
    """`qlora`: the base model is held in 4-bit NF4. `lora`: in 16 bits, which is faster and exact where it
    fits. `auto`: `lora` if the base takes at most half of the memory, else `qlora`; the plan prints which.
    `full`: no adapter; all weights are trained, in 32 bits. It takes 16 bytes a weight and needs about a
    tenth of an adapter's `learning_rate`. `peft`: an adapter of another family, which `peft` names; it
    usually needs a higher `learning_rate` than LoRA."""

    lora: LoraSpec = Field(default_factory=LoraSpec, examples=[{"r": 16, "alpha": 32}])
    """The adapter."""

    peft: PeftSpec | None = Field(default=None, examples=[{"type": "ia3"}])
    """The adapter of `method: peft`. It is not merged: the server applies it to the base."""

    epochs: float = Field(default=3, gt=0, examples=[3])
    """Passes over the training rows."""

    learning_rate: float = Field(default=2e-4, gt=0, examples=[2e-4])
    """Peak learning rate."""

    schedule: Literal["linear", "cosine", "constant"] = Field(default="linear", examples=["cosine"])
    """How the learning rate falls after the warm-up."""

    warmup_steps: int | None = Field(default=None, ge=0, examples=[10])
    """Steps over which the learning rate rises from 0. Default: 10, or a tenth of all steps if that is
    less."""

    warmup_ratio: float | None = Field(default=None, ge=0.0, lt=1.0, examples=[0.03])
    """The same as a share of all steps, in place of `warmup_steps`."""

    batch_size: int = Field(default=8, ge=1, examples=[8])
    """Rows per optimizer step."""

    micro_batch_size: int | None = Field(default=None, ge=1, examples=[2])
    """Rows per micro-batch. Memory grows with it; `batch_size` must be a multiple of it. If left out, the
    memory plan decides. It does not change the result of a step."""

    memory: Literal["auto"] | MemoryFit = Field(default="auto", examples=["auto", {"fit": "24GB"}])
    """How much of the device's memory training may use: all that is free, or a bound. It determines the
    micro-batches and which layers use gradient checkpointing."""

    processes: int = Field(default=1, ge=1, le=64, examples=[1])
    """Processes of one machine that share each step, one per GPU. A step keeps the same rows."""

    nodes: int = Field(default=1, ge=1, le=64, examples=[1])
    """Machines that share each step, with `processes` on each; `tunebuild launch` renders the launch
    command."""

    shard: bool = Field(default=False, examples=[True])
    """Shard weights, gradients and optimizer state over all processes (FSDP) instead of keeping them whole in
    each. For a model that is too large for one GPU; needs `full` or `lora`. It does not change the result."""

    packing: bool = Field(default=True, examples=[True])
    """Pack rows into one sequence instead of padding them. Rows do not attend to each other; if a model
    cannot guarantee that, rows are padded, and the plan says so."""

    max_length: int = Field(default=2048, ge=8, examples=[2048])
    """Longest row in tokens, prompt and answer together; see `data.on_long`. It may exceed the base's
    positions as long as no row does."""

    weight_decay: float = Field(default=0.0, ge=0.0, examples=[0.0])
    """Weight decay of the optimizer."""

    max_grad_norm: float = Field(default=1.0, gt=0.0, examples=[1.0])
    """Gradients are clipped to this norm."""

    evaluations: int = Field(default=4, ge=1, le=1000, examples=[4])
    """How often the held-out rows are evaluated during training."""

    early_stopping: EarlyStopping | None = Field(default=None, examples=[{"patience": 3}])
    """Stop when the loss on held-out rows no longer improves."""

    keep: Literal["last", "best"] = Field(default="last", examples=["best"])
    """Which adapter is kept: the last one, or the one with the smallest loss on held-out rows."""

    checkpoints: int = Field(default=2, ge=1, le=100, examples=[2])
    """How many checkpoints stay on disk during training, plus one while the next is being written."""

    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        default=(), examples=[["tensorboard"]]
    )
    """Where else to send the metrics. The package must be installed; it reads its settings from its own
    environment variables (`WANDB_PROJECT`, `MLFLOW_TRACKING_URI`, `TENSORBOARD_LOGGING_DIR`, which has to be
    set)."""

    seed: int = Field(default=0, ge=0, le=2**32 - 1, examples=[0])
    """Seeds the adapter, the order of rows and the evaluation split."""

    compute_dtype: Literal["auto", "bfloat16", "float32"] = Field(default="auto", examples=["auto"])
    """Precision of matrix products. `auto` is bfloat16 where the hardware has it, else float32; the plan
    prints which, and the build records it."""


class MergeSpec(Section):
    """How the adapter becomes part of the weights."""

    strategy: Literal["auto", "original", "dequantized", "none"] = Field(default="auto", examples=["auto"])
    """`original` adds the update to the published weights. `dequantized` adds it to the weights as the
    quantized training saw them. `auto` compares both with the trained model and keeps the closer one. With
    `lora`, the base was never quantized, so `auto` is `original`. `none` merges nothing: the published
    weights are layers that all adapters of a base share, the adapter is one more layer, and the server
    applies it to the base. That is quicker to ship and slower to serve. `full` trains the weights themselves,
    so nothing is merged."""
