"""The spec: one file that owns training and serving."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from tunebuild.spec.data import DataSpec
from tunebuild.spec.evaluation import EvaluationSpec
from tunebuild.spec.exports import ExportSpec
from tunebuild.spec.gates import GatesSpec
from tunebuild.spec.model import ModelSpec, PromptSpec
from tunebuild.spec.section import Section
from tunebuild.spec.serving import ImageSpec, ServingSpec
from tunebuild.spec.tuning import MergeSpec, TuningSpec

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$", max_length=63)]

Output = Literal["image", "weights", "adapter", "modelpack"]


class Spec(Section):
    """A tunebuild spec, `apiVersion: tunebuild/v1`."""

    api_version: Literal["tunebuild/v1"] = Field(alias="apiVersion", examples=["tunebuild/v1"])
    """Version of this language."""

    extends: str | None = Field(default=None, min_length=1, examples=["../base.yaml"])
    """Another spec, relative to this file, that this one overlays. Mappings are merged key by key, other
    values are replaced, and null removes a key. Each file's relative paths start at its own directory, so a
    base's rows and templates stay beside it."""

    name: Name = Field(examples=["support-bot"])
    """Name of the model: in the endpoint, and of the image unless `image.repository` says otherwise."""

    description: str = Field(default="", examples=["Answers customers' questions."])
    """One sentence for people; it goes into the image's labels."""

    data: DataSpec = Field(examples=[{"train": [{"path": "faq.jsonl", "format": "qa"}]}])
    """Training and evaluation data."""

    model: ModelSpec = Field(examples=[{"base": "./base"}])
    """The base model."""

    prompt: PromptSpec = Field(default_factory=PromptSpec, examples=[{"template": "base"}])
    """The prompt, for training and serving alike."""

    tuning: TuningSpec = Field(default_factory=TuningSpec, examples=[{"method": "qlora", "epochs": 3}])
    """Training."""

    merge: MergeSpec = Field(default_factory=MergeSpec, examples=[{"strategy": "auto"}])
    """How the adapter becomes part of the weights."""

    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec, examples=[{"samples": 16}])
    """What base and tuned model are asked, besides the loss on held-out rows."""

    gates: GatesSpec = Field(default_factory=GatesSpec, examples=[{"eval_loss": {"max": 1.2}}])
    """Limits that a build must meet before an image is made."""

    exports: tuple[ExportSpec, ...] = Field(default=(), max_length=8, examples=[[{"format": "gptq"}]])
    """Quantized exports (GPTQ, AWQ) of the merged model, which `tunebuild export` writes for vLLM and
    transformers."""

    serving: ServingSpec = Field(default_factory=ServingSpec, examples=[{"device": "cpu"}])
    """The endpoint."""

    image: ImageSpec = Field(default_factory=ImageSpec, examples=[{"base": "apt"}])
    """The container image."""

    outputs: tuple[Output, ...] = Field(default=("image",), max_length=4, examples=[["image", "weights"]])
    """What is published. `image` is the runnable image and is always included. `weights` is `/models` alone,
    in the same layers: a volume for Kubernetes, KServe and `vllm serve /models`. `adapter` is the adapter
    alone, in PEFT's format. `modelpack` is the model as a CNCF ModelPack; its blobs differ, so a registry
    stores the weights twice. The tag of each is the image's tag, a dash and the output's name."""

    @property
    def reference(self) -> str:
        """The image's name and tag."""
        return f"{self.image.repository or self.name}:{self.image.tag}"
