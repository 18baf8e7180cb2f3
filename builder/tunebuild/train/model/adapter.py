"""Makes the LoRA adapter: seeded, in float32, and saved without a trace of this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    PromptTuningInit,
    get_peft_model,
)
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, set_seed

from tunebuild.errors import fail
from tunebuild.models.ends import ends_of, is_tied
from tunebuild.models.skeleton import outside_of_text
from tunebuild.spec.tuning import LoraSpec, PeftSpec, TuningSpec
from tunebuild.train.model.fused_lora import use_fused_layers
from tunebuild.train.model.inits import make_up_for_quantization, name_in_peft, subtract_first
from tunebuild.train.model.tied import share_factors, tensors_of_head, tied_targets

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def add_adapter(
    model: PreTrainedModel,
    tuning: TuningSpec,
    *,
    base: Path,
    fused: bool = False,
    new_tokens: Sequence[int] = (),
) -> PeftModel:
    """Wrap the base in a fresh adapter.

    The seed is set here, right before the adapter is made: trainers seed themselves too late for that.

    Args:
        model: the base.
        tuning: the spec's section.
        base: directory of the published weights.
        fused: make our layers instead of PEFT's.
        new_tokens: ids of tokens whose rows of embedding and head are trained, too.

    Raises:
        TunebuildError: no module of the model has one of the target names.
    """
    set_seed(tuning.seed)
    config = (
        _other_config(model, tuning.peft) if tuning.peft else _lora_config(model, tuning.lora, new_tokens)
    )
    if fused:
        use_fused_layers(config)
    try:
        peft_model = get_peft_model(model, config)
    except ValueError as error:
        message = str(error).splitlines()[0]
        raise fail(
            "lora-targets", message, "use all-linear, or names of linear modules", path="tuning.lora.targets"
        ) from error
    if isinstance(config, LoraConfig) and config.ensure_weight_tying:
        share_factors(peft_model)
    if new_tokens:
        # TRL asks the head for it, and PEFT's wrapper hands out the weight alone. Heads with one are refused.
        peft_model.get_output_embeddings().bias = None
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if tuning.lora.init == "loftq":
        make_up_for_quantization(peft_model, base)
    return peft_model


def _lora_config(model: PreTrainedModel, lora: LoraSpec, new_tokens: Sequence[int] = ()) -> LoraConfig:
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    both = None if isinstance(targets, str) else tied_targets(model, targets)
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=both or targets,
        ensure_weight_tying=both is not None,
        trainable_token_indices=_rows(model, new_tokens),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        init_lora_weights=name_in_peft(lora),
        # Text alone would train the rest on nothing.
        exclude_modules=_within(outside_of_text(model)),
        bias="none",
        task_type="CAUSAL_LM",
    )


def _rows(model: PreTrainedModel, ids: Sequence[int]) -> dict[str, list[int]] | None:
    """PEFT's setting for rows that are trained. Where embedding and head are one tensor, they are one's."""
    if not ids:
        return None
    ends = ends_of(model)
    return {end: sorted(ids) for end in (ends[:1] if is_tied(model) else ends)}


def _within(names: Sequence[str]) -> str | None:
    """PEFT's pattern for what is in some modules."""
    return rf"(?:{'|'.join(map(re.escape, names))})(?:\..*)?" if names else None


def _other_config(model: PreTrainedModel, peft: PeftSpec) -> PeftConfig:
    """PEFT's configuration of another family.

    Raises:
        TunebuildError: PEFT does not know which layers of this architecture IA3 scales.
    """
    if peft.type == "prefix_tuning":
        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=peft.virtual_tokens)
    if peft.type == "prompt_tuning":
        return PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=peft.virtual_tokens,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,  # drawn ones learn slowly
        )
    kind = model.config.model_type
    if kind not in TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING:
        raise fail(
            "ia3", f"PEFT does not know which layers of {kind} IA3 scales", "use lora", path="tuning.peft"
        )
    return IA3Config(task_type="CAUSAL_LM")


def save_model(
    model: PreTrainedModel, directory: Path, *, whole: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write a model all of whose weights were trained, as they are, under the names that its base has.

    ``whole`` are the weights, if the model holds only a part of each.
    """
    if whole is not None:  # gathered, a tied weight is there once for each of its names
        whole = {name: weight for name, weight in whole.items() if name not in model.all_tied_weights_keys}
    model.save_pretrained(directory, max_shard_size="2GB", state_dict=whole)


def trainable_copy(model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's tensors as they are now."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def restore_trainable(model: PeftModel, saved: dict[str, torch.Tensor]) -> None:
    """Put the adapter's tensors back, dtype included.

    TRL casts the adapter of a quantized model to bfloat16. At small learning rates its updates then
    vanish in rounding: a final loss of 6.63 instead of 6.20 was measured.
    """
    for name, parameter in model.named_parameters():
        if name in saved:
            parameter.data = saved[name].clone()  # steps write in place


def save_adapter(
    model: PeftModel,
    directory: Path,
    *,
    first: Mapping[str, torch.Tensor] | None = None,
    whole: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write the adapter in PEFT's format, for the published base, and nothing else that PEFT would add.

    Args:
        model: the trained model.
        directory: gets it.
        first: the adapter's tensors when training began, if its first update was taken out of the base.
        whole: the adapter's tensors, if the model holds only a part of each.
    """
    embedding, head = ends_of(model.get_base_model())
    # With the adapter of an embedding or a head, PEFT would write the base's whole tensors, too.
    model.save_pretrained(directory, safe_serialization=True, state_dict=whole, save_embedding_layers=False)
    for path in directory.iterdir():
        if path.name not in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
            path.unlink()
    path = directory / ADAPTER_CONFIG
    config = json.loads(path.read_text("utf-8"))
    weights = directory / ADAPTER_WEIGHTS
    if of_head := tensors_of_head(model, tensors := load_file(weights)):
        save_file({**tensors, **of_head}, weights, {"format": "pt"})
    if config.get("ensure_weight_tying") and embedding in (config.get("target_modules") or ()):
        # PEFT takes the head out again, and then knows some embeddings no more by their names.
        config["target_modules"] = list({*config["target_modules"], head})
    if first is not None:
        began = {name.replace(".default.", "."): tensor.cpu() for name, tensor in first.items()}
        tensors, config = subtract_first(load_file(weights), began, config)
        save_file(tensors, weights, {"format": "pt"})
    config["base_model_name_or_path"] = None  # a path of this machine means nothing elsewhere
    for key, value in config.items():
        if isinstance(value, list):
            config[key] = sorted(value)  # PEFT keeps target modules in a set; its order changes by run
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
