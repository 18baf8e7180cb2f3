"""Whether a base can be trained as the spec says, merged, evaluated and served. Loads no weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from tunebuild.errors import TunebuildError, fail
from tunebuild.heavy_imports import heavy_imports
from tunebuild.spec.tuning import TuningSpec

# First values of an adapter that PEFT makes of a layer's weight, which experts in one tensor have not.
_FROM_WEIGHTS = ("orthogonal", "pissa", "olora", "loftq")
# What decides neither where an adapter goes nor whether that is stored.
_LONGEST_REASON = 300
_PLAIN = {"init": "default", "dropout": 0.0, "dora": False}
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
    new_tokens: tuple[int, ...] = (),
) -> None:
    """Refuse a base that a stage behind the training could not work with.

    The model is built on the meta device and gets the adapter that training would give it, so that PEFT
    itself says which layers are adapted; each must be one stored tensor, which the merge can add to.

    Args:
        directory: the base.
        tuning: the spec's section, its method decided.
        merges: whether the adapter is merged, not served beside the base.
        engine: what will serve the model.
        new_tokens: ids of control tokens whose rows are trained.

    Raises:
        TunebuildError: with the way out.
    """
    check_files(directory)
    with heavy_imports():
        from tunebuild.models.skeleton import build_skeleton
    try:
        skeleton = build_skeleton(directory)
    except Exception as error:
        # What a wrong value runs into is any line of the library: a division, a tensor's size, a check.
        reason = " ".join((str(error).strip() or type(error).__name__).split())[:_LONGEST_REASON]
        message = f"the base cannot be built as its config.json says: {reason}"
        hint = "it must be a causal language model that the installed transformers knows"
        raise fail("base-model", message, hint, path="model.base") from error
    from tunebuild.preflight.stored import check_stored
    from tunebuild.train.plan.shapes import read_tensors

    check_stored(skeleton, read_tensors(directory))
    _check_cache(skeleton, tuning, engine)
    if tuning.method == "full":
        _check_full(skeleton, directory)
    if tuning.method in ("lora", "qlora"):
        if new_tokens:
            _check_new_tokens(skeleton, tuning)
        _check_targets(skeleton, directory, tuning, merges, new_tokens)


def _check_cache(skeleton: Any, tuning: TuningSpec, engine: Literal["transformers", "vllm"]) -> None:
    from tunebuild.serve.engines.caches import cache_kind

    kind = cache_kind(skeleton)
    if kind == "state" and tuning.peft and tuning.peft.type != "ia3":
        raise fail(
            "cache-type",
            f"{type(skeleton).__name__} keeps a state, which virtual tokens cannot be put before",
            "use tuning.method: lora",
            path="tuning.peft",
        )
    if kind == "unknown":
        raise fail(
            "cache-type",
            f"{type(skeleton).__name__} keeps a state of its own instead of a cache of transformers, with "
            "which the evaluation cannot write answers" + ("" if engine == "vllm" else ", nor the server"),
            "choose a base of which every layer is attention, linear attention or a convolution",
            path="model.base",
        )


def _check_full(skeleton: Any, directory: Path) -> None:
    from tunebuild.models.skeleton import outside_of_text, stored_parts
    from tunebuild.train.plan.shapes import read_tensors

    tensors = read_tensors(directory)
    parts = stored_parts(skeleton, tensors)
    left = sorted(tensors.keys() - parts.keys())
    if left or outside_of_text(skeleton):
        raise fail(
            "full-multimodal",
            "the base holds more than the model that reads text"
            + (f" ({left[0]} and {len(left) - 1} more)" if left else " (a vision tower)")
            + ", which training all weights would not carry over",
            "use tuning.method: lora or qlora, which leave the rest as published",
            path="tuning.method",
        )


def _check_targets(
    skeleton: Any, directory: Path, tuning: TuningSpec, merges: bool, new_tokens: tuple[int, ...]
) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from tunebuild.models.ends import tied_weights
    from tunebuild.models.skeleton import stored_parts
    from tunebuild.train.model.adapter import add_adapter
    from tunebuild.train.plan.shapes import read_tensors

    modules = dict(skeleton.named_modules())
    if isinstance(tuning.lora.targets, tuple):
        _check_names(tuning.lora.targets, modules)
        _check_ends(tuning, skeleton)
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
    parts = stored_parts(skeleton, tensors)
    parameters = {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}
    # Only where adapters go is asked, not what they begin with, which needs weights.
    plain = tuning.model_copy(update={"lora": tuning.lora.model_copy(update=_PLAIN)})
    import torch

    tied = tied_weights(skeleton)
    with torch.device("meta"):
        adapted = add_adapter(skeleton, plain, base=directory, new_tokens=new_tokens)
    whole = {part.parameter: name for name, part in parts.items() if part.expert is None}
    firsts = [part for part in parts.values() if part.expert is not None and not part.before]
    experts = Counter(part.parameter for part in firsts)
    for name, module in adapted.get_base_model().named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        kind = module.get_base_layer()
        name = name.replace(".base_layer", "").removesuffix(".token_adapter")
        if wrapped := getattr(module, "parameter_name", None):
            _check_experts(tuning, modules)
            weight = f"{name}.{wrapped}"
            fits = tensors[whole[weight]] == parameters[weight] if weight in whole else False
            fits = fits if module.num_experts == 1 else experts[weight] == module.num_experts
        elif isinstance(kind, nn.Linear | Conv1D | nn.Embedding):
            weight = f"{name}.weight"
            same = tied if weight in tied else {weight}
            fits = any(one in whole and tensors[whole[one]] == parameters[one] for one in same)
        else:
            raise _not_linear(name, kind, modules)
        if merges and not fits:
            raise fail(
                "not-mergeable",
                f"{weight} is stored in another layout than in the model, so its update cannot be merged",
                _attention_targets(modules),
                path="tuning.lora.targets",
            )


def _check_experts(tuning: TuningSpec, modules: Mapping[str, Any]) -> None:
    """Refuse what PEFT cannot do with a parameter that is no linear layer's."""
    lora = tuning.lora
    found = {
        "dropout": bool(lora.dropout) and f"dropout of {lora.dropout}",
        "dora": lora.dora and "DoRA",
        "init": lora.init in _FROM_WEIGHTS and f"first values of the kind {lora.init}",
    }
    for field, what in found.items():
        if what:
            raise fail(
                "lora-experts",
                f"the experts are one tensor, for which PEFT has no {what}",
                f"leave out tuning.lora.{field}, or {_attention_targets(modules)}",
                path=f"tuning.lora.{field}",
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


def _check_ends(tuning: TuningSpec, skeleton: Any) -> None:
    """Refuse what PEFT or the merge cannot do with an embedding or a head."""
    from tunebuild.models.ends import ends_of, is_named, is_tied

    lora = tuning.lora
    embedding, head = (end if is_named(end, lora.targets) else "" for end in ends_of(skeleton))
    if not embedding and not head:
        return
    if is_tied(skeleton):
        embedding, head = ends_of(skeleton)
    named = " and ".join(end for end in (embedding, head) if end)
    first = lora.init in _FROM_WEIGHTS and f"there are no first values of the kind {lora.init}"
    found = {
        "tuning.lora.dora": lora.dora and bool(embedding) and "there is no DoRA",
        "tuning.lora.init": first,
        "tuning.shard": tuning.shard and "an adapter cannot be split over processes",
    }
    for path, what in found.items():
        if what:
            tied = ", which are one tensor" if embedding and head and is_tied(skeleton) else ""
            raise fail(
                "lora-ends",
                f"{what} for {named}{tied}",
                f"leave out {path}, or the embedding and the head among tuning.lora.targets",
                path=path,
            )


def _check_new_tokens(skeleton: Any, tuning: TuningSpec) -> None:
    """Refuse what PEFT cannot do beside rows of embedding and head that are trained."""
    from tunebuild.models.ends import ends_of, is_named

    targets = () if isinstance(tuning.lora.targets, str) else tuning.lora.targets
    if found := [end for end in ends_of(skeleton) if is_named(end, targets)]:
        raise fail(
            "new-tokens",
            f"PEFT cannot train rows of {found[0]} for prompt.new_tokens and give it an adapter, too",
            "leave it out of the targets",
            path="tuning.lora.targets",
        )
    head = skeleton.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is not None:
        raise fail(
            "new-tokens",
            f"PEFT cannot train rows of the head of {type(skeleton).__name__}, "
            + ("which it has none of" if head is None else "which has a bias"),
            "leave prompt.new_tokens out, or use tuning.method: full",
            path="prompt.new_tokens",
        )


def _not_linear(name: str, module: Any, modules: Mapping[str, Any]) -> TunebuildError:
    return fail(
        "not-mergeable",
        f"{name} ({type(module).__name__}) is no linear layer, so its update cannot be merged",
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
