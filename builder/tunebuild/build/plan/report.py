"""The plan as a value: what ``tunebuild plan --json`` prints and the other forms are made from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_FILE = "tunebuild-plan-v1.schema.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, defer_build=True)


class Change(_Part):
    """One input that is not what it was."""

    field: str
    """Dotted path of the input."""
    old: Any
    """Its value then; null if it was absent."""
    new: Any
    """Its value now; null if it is absent."""


class StagePlan(_Part):
    """One stage."""

    name: str
    """`data`, `train`, `merge`, `evaluate`, `weights`, `chat`, `runtime` or `image`."""
    status: Literal["unchanged", "run", "resume"]
    """`run`: it has to; `resume`: it goes on from a checkpoint."""
    why: Change | None = None
    """The first input that differs from the most similar earlier build of that name, if any."""
    after: str | None = None
    """The earlier stage whose output has to be known first."""


class Bin(_Part):
    """A bar of a histogram."""

    low: int
    """Shortest length in tokens."""
    high: int
    """Longest length in tokens."""
    rows: int
    """How many rows are as long."""


class DataPlan(_Part):
    """The rows."""

    train: int
    """Rows to train on."""
    eval: int
    """Rows held out."""
    rejected: dict[str, int]
    """Rows that are not used, by reason."""
    unshown: tuple[str, ...]
    """What no prompt shows of the rows, such as keys that the template does not print; a sentence each."""
    tokens: int
    """Tokens in the training rows."""
    supervised_share: float
    """Share of those that are supervised."""
    histogram: tuple[Bin, ...]
    """Lengths of the training rows."""


class TrainingPlan(_Part):
    """What training would do."""

    method: str
    """`qlora`, `lora` or `full`."""
    device: str
    """Where."""
    compute_dtype: str
    """In which precision."""
    batch_size: int
    """Rows per optimizer step."""
    micro_batches: int
    """Micro-batches of a step."""
    max_tokens: int
    """Most tokens in a micro-batch."""
    step_tokens: int
    """Tokens of a step, on average."""
    epochs: float
    """Passes over the rows."""
    steps: int
    """Optimizer steps."""
    reasons: tuple[str, ...]
    """Why it is computed like this, a sentence each."""


class MemoryPlan(_Part):
    """Memory of training, estimated, in bytes."""

    components: dict[str, int]
    """By what it is for."""
    total: int
    """Sum."""
    available: int | None
    """What the device has; null if that is not known."""


class ServingPlan(_Part):
    """The endpoint."""

    engine: str
    """What runs the model: `transformers` or `vllm`."""
    device: str
    """Where: `cpu` or `cuda`."""
    reason: str
    """Why that engine, where the spec leaves it to tunebuild; empty where the spec names it."""
    context: int
    """Longest prompt and answer together, in tokens."""
    positions: int | None
    """Tokens that the base has positions for; null if it names no end."""
    no_tools: str
    """Why requests may bring no tools; empty where they may."""


class DiskPlan(_Part):
    """Disk space, estimated, in bytes."""

    needed: dict[str, int]
    """What will be written, by purpose, each at its most."""
    most: int
    """The most that is there at once: not all of it stays."""
    free: int
    """What is free where the store is."""
    lacking: int
    """What is too little, there and where the archive goes; 0 if all fits."""


class LayerPlan(_Part):
    """A layer of the image."""

    name: str
    """What it holds."""
    size: int | None
    """Bytes; null before it has been built."""
    status: Literal["reused", "new"]
    """Whether the image compared with has it."""


class ImagePlanned(_Part):
    """The image."""

    reference: str
    """Its name."""
    compared_with: str | None
    """The image whose layers count as sent: the last archive."""
    layers: tuple[LayerPlan, ...]
    """Bottom first."""
    platform: str
    """Operating system and processor that it is for."""
    cuda: str | None
    """CUDA version of its packages, such as `13.0`; empty for none, null before they have been fetched."""
    driver: int | None
    """Oldest NVIDIA driver that it runs with; null if it needs none."""
    size: int
    """Bytes of all layers; estimated where one has not been built."""
    estimated: bool
    """Whether that is an estimate."""
    send: int | None
    """Bytes that a registry or runtime with that image still needs; null before they can be known."""


class OutputPlan(_Part):
    """What is published besides the runnable image."""

    name: str
    """`weights`, `adapter` or `modelpack`."""
    reference: str
    """Its name."""
    adds: int
    """Bytes that a registry which has the runnable image stores more, about."""


class Blast(_Part):
    """What a change sets off."""

    other: str
    """What it was compared with."""
    level: Literal[
        "nothing",
        "metadata",
        "other exports",
        "other gates",
        "serve only",
        "new packages",
        "merge again",
        "retrain",
    ]
    """The farthest-reaching consequence."""
    stages: tuple[str, ...]
    """Stages with other inputs, and those after them."""
    changes: dict[str, tuple[Change, ...]]
    """Changed inputs by stage."""
    words: tuple[str, ...] = ()
    """What changed and what follows from it, a sentence each."""


class Plan(_Part):
    """A whole plan."""

    plan_version: Literal[1] = Field(default=1, alias="planVersion")
    """Version of this form."""
    spec: str
    """The spec's file."""
    name: str
    """The spec's name."""
    work: bool
    """Whether a build would do anything."""
    stages: tuple[StagePlan, ...]
    """In order."""
    data: DataPlan
    """The rows."""
    training: TrainingPlan
    """The training."""
    memory: MemoryPlan
    """Its memory."""
    serving: ServingPlan
    """The endpoint."""
    disk: DiskPlan
    """Disk space."""
    image: ImagePlanned
    """The image."""
    outputs: tuple[OutputPlan, ...]
    """What is published besides it."""
    lock: Literal["none", "matches", "behind"]
    """Whether there is a lock, and says what would be built."""
    drift: tuple[str, ...]
    """Where the lock is behind."""
    against: Blast | None = None
    """With `--against`: what the difference sets off."""


def plan_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a plan."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:tunebuild:{SCHEMA_FILE}",
        **Plan.model_json_schema(by_alias=True, mode="serialization"),
    }
