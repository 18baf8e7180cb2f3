"""Rules of serving: which engine runs the model, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tunebuild.errors import Diagnostic
from tunebuild.spec.folder import Folder
from tunebuild.spec.spec import Spec

_MAX_RANK = 512  # vLLM has kernels up to there
_EMBEDDINGS = ("lm_head", "embed_tokens", "wte", "embed_out", "word_embeddings")


def engine_of(spec: Spec) -> Literal["transformers", "vllm"]:
    """What runs the model, with ``auto`` decided."""
    wanted = spec.serving.engine
    if wanted != "auto":
        return wanted
    return "vllm" if spec.serving.device == "cuda" and not list(refused_by_vllm(spec)) else "transformers"


def engine_reason(spec: Spec) -> str:
    """Why :func:`engine_of` says what it says; empty where the spec names the engine."""
    if spec.serving.engine != "auto":
        return ""
    if spec.serving.device == "cpu":
        return "the default on cpu"
    refused = next((message for _, message in refused_by_vllm(spec)), "")
    return refused or "the default on cuda"


def refused_by_vllm(spec: Spec) -> Iterator[tuple[str, str]]:
    """What of an adapter that stays beside its base vLLM does not serve: spec path and the reason."""
    tuning = spec.tuning
    if tuning.method == "peft":
        kind = tuning.peft.type if tuning.peft else "peft"
        yield "tuning.method", f"vLLM serves no adapter of the kind {kind}"
        return
    if spec.merge.strategy != "none" or tuning.method == "full":
        return
    if spec.prompt.new_tokens:
        yield "prompt.new_tokens", "vLLM serves no adapter that trained rows of an embedding"
    if spec.serving.device == "cuda" and spec.serving.dtype == "float32":
        yield "serving.dtype", "vLLM serves adapters on a GPU in 16 bits only"
    lora = tuning.lora
    if lora.dora:
        yield "tuning.lora.dora", "vLLM serves no DoRA adapter"
    # What begins as the base's own directions is saved as a difference of twice the rank.
    rank = lora.r * (2 if lora.init in ("pissa", "olora") else 1)
    if rank > _MAX_RANK:
        yield "tuning.lora.r", f"vLLM serves adapters up to rank {_MAX_RANK}, not {rank}"
    targets = () if isinstance(lora.targets, str) else lora.targets
    for name in targets:
        if name.rpartition(".")[2] in _EMBEDDINGS:
            yield "tuning.lora.targets", f"vLLM serves no adapter of {name}"


def vllm_serves_it(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """vLLM is asked for nothing that it refuses after hours of training."""
    if spec.serving.engine != "vllm":
        return
    for path, message in refused_by_vllm(spec):
        hint = "merge it (merge.strategy: auto), or serve with 'serving.engine: transformers'"
        if spec.tuning.method == "peft":
            hint = "serve with 'serving.engine: transformers'"
        yield Diagnostic("vllm-refuses", message, hint, path)


def outputs_can_be_made(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """Each output has something to be made of, and the runnable image is among them."""
    if "image" not in spec.outputs or len(set(spec.outputs)) < len(spec.outputs):
        message = "outputs must name 'image', and nothing twice"
        yield Diagnostic("outputs", message, "write outputs: [image, weights]", "outputs")
    for index, output in enumerate(spec.outputs):
        path = f"outputs[{index}]"
        if output == "adapter" and spec.tuning.method == "full":
            hint = "take it out, or train with 'tuning.method: lora'"
            yield Diagnostic("outputs", "training all weights leaves no adapter", hint, path)
        if output == "adapter" and spec.prompt.new_tokens:
            message = "the adapter belongs to the base with prompt.new_tokens, which nobody has published"
            yield Diagnostic("outputs", message, "publish the weights: outputs: [image, weights]", path)
        if output in ("weights", "modelpack") and spec.merge.strategy == "none":
            message = f"the adapter is not merged, so '{output}' would be the base model"
            yield Diagnostic("outputs", message, "publish the adapter: outputs: [image, adapter]", path)


def platform_has_wheels(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """The engine has packages for the platform."""
    if engine_of(spec) == "vllm" and spec.serving.device == "cpu" and spec.image.platform == "linux/arm64":
        message = "vLLM's CPU build needs its own build of torch, which is only there for linux/amd64"
        yield Diagnostic("platform", message, "use 'serving.engine: transformers'", "serving.engine")
