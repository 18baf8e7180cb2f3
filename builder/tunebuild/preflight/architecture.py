"""Whether a base can be trained as the spec says, merged, evaluated and served. Loads no weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from tunebuild.errors import TunebuildError, fail
from tunebuild.heavy_imports import heavy_imports
from tunebuild.spec.tuning import TuningSpec

# Layers whose cache is keys and values for each token; others keep a state, which cannot be padded.
_PADDED_CACHES = {"full_attention", "sliding_attention", "chunked_attention", "attention", "local", "global"}
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def check_files(directory: Path) -> None:
    """Refuse a base whose files say that nothing can be added to its weights.

    Raises:
        TunebuildError: ``base-quantized`` or ``base-adapter``.
    """
    config = json.loads((directory / "config.json").read_text("utf-8"))
    text = config.get("text_config")
    nested = text.get("quantization_config") if isinstance(text, Mapping) else None
    if quantization := config.get("quantization_config") or nested:
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        raise fail(
            "base-quantized",
            f"the base's own weights are quantized ({method or 'config.json has a quantization_config'}), so "
            "no update can be merged into them",
            "name the repository with the 16-bit weights; method: qlora quantizes them in training",
            path="model.base",
        )
    if found := next((name for name in _ADAPTER_FILES if (directory / name).is_file()), None):
        raise fail(
            "base-adapter",
            f"the base's directory also holds an adapter ({found}), which training would ignore",
            "merge it into the base first (PEFT's merge_and_unload), or remove it",
            path="model.base",
        )


def check_architecture(
    directory: Path,
    tuning: TuningSpec,
    *,
    merges: bool,
    engine: Literal["transformers", "vllm"] = "transformers",
) -> None:
    """Refuse a base that a stage behind the training could not work with.

    The model is built on the meta device and gets the adapter that training would give it, so that PEFT
    itself says which layers are adapted; each must be one stored tensor, which the merge can add to.

    Args:
        directory: the base.
        tuning: the spec's section, its method decided.
        merges: whether the adapter is merged, not served beside the base.
        engine: what will serve the model.

    Raises:
        TunebuildError: with the way out.
    """
    check_files(directory)
    with heavy_imports():
        from tunebuild.models.skeleton import build_skeleton
    try:
        skeleton = build_skeleton(directory)
    except (ValueError, KeyError, OSError, ImportError, AttributeError, TypeError) as error:
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "it must be a causal language model that the installed transformers knows"
        raise fail("base-model", f"the base cannot be built: {message}", hint, path="model.base") from error
    _check_cache(skeleton)
    if tuning.method in ("lora", "qlora"):
        _check_targets(skeleton, directory, tuning, merges)


def _check_cache(skeleton: Any) -> None:
    kinds = getattr(skeleton.config.get_text_config(), "layer_types", None) or ()
    other = sorted({kind for kind in kinds if kind not in _PADDED_CACHES})
    if other or getattr(skeleton, "_is_stateful", False):
        raise fail(
            "cache-type",
            f"{type(skeleton).__name__} keeps a state instead of keys and values "
            f"({', '.join(other) or 'recurrent'}), which evaluation and the transformers engine cannot batch",
            "choose a base of which every layer is attention",
            path="model.base",
        )


def _check_targets(skeleton: Any, directory: Path, tuning: TuningSpec, merges: bool) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from tunebuild.models.skeleton import stored_names
    from tunebuild.train.model.adapter import add_adapter
    from tunebuild.train.plan.estimate import read_tensors

    modules = dict(skeleton.named_modules())
    if isinstance(tuning.lora.targets, tuple):
        _check_names(tuning.lora.targets, modules)
        _check_head(tuning.lora.targets, skeleton, modules)
    if tuning.method == "qlora" and not any(
        isinstance(m, nn.Linear) and m is not skeleton.get_output_embeddings() for m in modules.values()
    ):
        raise fail(
            "nothing-quantised",
            "the base has no linear layer that bitsandbytes can hold in 4 bits",
            "use tuning.method: lora",
            path="tuning.method",
        )
    tensors = read_tensors(directory)
    names = stored_names(skeleton, tensors)
    parameters = {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}
    # Only where adapters go is asked, not what they begin with, which needs weights.
    plain = tuning.model_copy(update={"lora": tuning.lora.model_copy(update={"init": "default"})})
    import torch

    with torch.device("meta"):
        adapted = add_adapter(skeleton, plain, base=directory)
    for name, module in adapted.get_base_model().named_modules():
        if not isinstance(module, BaseTunerLayer) or not merges:
            continue
        kind = module.get_base_layer()
        name = name.replace(".base_layer", "")
        if not isinstance(kind, nn.Linear | Conv1D):
            raise _not_linear(name, kind, modules)
        weight = f"{name}.weight"
        if weight not in names or tensors[names[weight]] != parameters[weight]:
            raise fail(
                "not-mergeable",
                f"{name} is stored in another layout than in the model, so its update cannot be merged",
                _attention_targets(modules),
                path="tuning.lora.targets",
            )


def _check_names(targets: Iterable[str], modules: Mapping[str, Any]) -> None:
    from difflib import get_close_matches

    leaves = sorted({name.rpartition(".")[2] for name in modules if name} - set(map(str, range(1000))))
    for target in targets:
        if any(name == target or name.endswith(f".{target}") for name in modules):
            continue
        close = get_close_matches(target, leaves, n=1, cutoff=0.5)
        linear = sorted({n.rpartition(".")[2] for n, m in modules.items() if hasattr(m, "in_features")})
        hint = f"did you mean '{close[0]}'?" if close else f"one of: {', '.join(linear)}"
        raise fail(
            "lora-targets", f"no module of the base is called '{target}'", hint, path="tuning.lora.targets"
        )


def _check_head(targets: Iterable[str], skeleton: Any, modules: Mapping[str, Any]) -> None:
    ends = (skeleton.get_input_embeddings(), skeleton.get_output_embeddings())
    for target in targets:
        if any(m in ends for n, m in modules.items() if n == target or n.endswith(f".{target}")):
            raise fail(
                "lora-targets",
                f"'{target}' is the embedding or the head, which LoRA does not adapt here",
                "leave it out of the targets; tuning.method: full trains it",
                path="tuning.lora.targets",
            )


def _not_linear(name: str, module: Any, modules: Mapping[str, Any]) -> TunebuildError:
    experts = any("experts" in type(one).__name__.lower() for one in modules.values())
    what = "is no linear layer"
    if experts:
        what += ", nor are the experts, which are one tensor in the model"
    return fail(
        "not-mergeable",
        f"{name} ({type(module).__name__}) {what}, so its update cannot be merged",
        _attention_targets(modules),
        path="tuning.lora.targets",
    )


def _attention_targets(modules: Mapping[str, Any]) -> str:
    """The way out: layers of the attention by name."""
    found = sorted(
        {n.rpartition(".")[2] for n, m in modules.items() if "attn" in n and hasattr(m, "in_features")}
    )
    return (
        f"set targets: [{', '.join(found)}]" if found else "name linear modules that are stored as they are"
    )
