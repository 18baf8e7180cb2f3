"""LLaMA-Factory's YAML, and the entries of ``dataset_info.json`` that it names.

Names and defaults as in its ``hparams`` and ``data/parser.py`` (0.9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunebuild.importers._llama_factory_rows import carry_datasets, described
from tunebuild.importers.base import carry_base
from tunebuild.importers.method import Method, carry_adapter, settle_bits
from tunebuild.importers.refuse import other_objective
from tunebuild.importers.templates import carry_template
from tunebuild.importers.work import Defaults, Setting, Work, as_number, is_off

_BITS = (
    "quantization_bit",
    "quantization_method",
    "quantization_type",
    "double_quantization",
    "quantization_device_map",
)


class LlamaFactory:
    """Reads LLaMA-Factory's configurations."""

    name = "llama-factory"
    title = "LLaMA-Factory"
    required = frozenset(("model_name_or_path",))
    keys = frozenset(
        (
            "model_name_or_path",
            "stage",
            "finetuning_type",
            "dataset",
            "dataset_dir",
            "template",
            "cutoff_len",
            "lora_rank",
            "lora_target",
            "preprocessing_num_workers",
            "overwrite_cache",
            "plot_loss",
            "quantization_bit",
            "val_size",
        )
    )

    def defaults(self, value: Mapping[str, Any]) -> Defaults:
        """As its argument classes and transformers have them."""
        return Defaults(
            rows_at_once=8,
            accumulation=1,
            epochs=3,
            learning_rate=5e-5,
            schedule="linear",
            max_length=2048,
        )

    def settings(self, value: Mapping[str, Any]) -> Sequence[Setting]:
        """All keys at the top; what ``dataset_info.json`` says is beside them."""
        return [Setting(key, key, inner) for key, inner in value.items() if key != "dataset_info"]

    def complete(self, value: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
        """Add the entries of ``dataset_info.json``, if it is there."""
        found = described(value, file)
        return {**value, "dataset_info": found} if found else value

    def carry(self, work: Work) -> None:
        """Carry model, rows, template and adapter."""
        _refuse_others(work)
        carry_base(work, work.find("model_name_or_path"))
        stage = work.find("stage")
        carry_datasets(work, plain=bool(stage and stage.value == "pt"))
        if stage:
            remark = "all of a row's text is in the loss" if stage.value == "pt" else ""
            if remark:
                work.ledger.carried(stage.key, "data.train[0].format", remark)
            else:
                work.ledger.same(stage.key, "tunebuild fine-tunes on answers")
        _carry_prompt(work)
        method, comment = _method(work)
        settle_bits(work, ("finetuning_type",), "")
        carry_adapter(work, method, comment)
        work.draft.set(
            "data.on_long", "drop", "LLaMA-Factory cuts longer rows, answers too; here they are dropped."
        )


def _refuse_others(work: Work) -> None:
    stage = work.find("stage")
    if stage and stage.value not in ("sft", "pt"):
        raise other_objective("LLaMA-Factory", f"stage: {stage.value}", str(stage.value))


def _carry_prompt(work: Work) -> None:
    template, thinking = work.find("template"), work.find("enable_thinking")
    if template is None:
        work.draft.set("prompt.template", "base", "The model's own, as in LLaMA-Factory where none is named.")
    elif isinstance(template.value, str) and template.value.startswith("qwen3"):
        work.draft.set("prompt.template", "base", "The model's own, which LLaMA-Factory's follows.")
        remark = "the model's own"
        if template.value.endswith("nothink"):
            remark += "; for a model that can think, set prompt.variables: {enable_thinking: false}"
        work.ledger.carried(template.key, "prompt.template", remark)
    elif template.value == "empty":
        work.draft.set("prompt.template", "qa", "In place of no template at all.")
        text = "every conversation has a template here, by which a prompt ends where the answer begins"
        work.ledger.lost(
            template.key, text, "write a prompt.jinja that prints contents alone and an end token"
        )
    else:
        carry_template(work, template)
    if thinking and isinstance(thinking.value, bool):
        if work.draft.get("prompt.template") == "base" and thinking.value is False:
            work.draft.set("prompt.variables", {"enable_thinking": False})
            work.ledger.carried(thinking.key, "prompt.variables.enable_thinking")
        else:
            work.ledger.same(
                thinking.key, "the template decides; an answer without reasoning closes the block"
            )


def _method(work: Work) -> tuple[Method, str]:
    kind, bits = work.find("finetuning_type"), work.find("quantization_bit")
    name = str(kind.value).lower() if kind else "lora"
    four = bool(bits and as_number(bits.value) == 4)
    backend = work.find("quantization_method")
    if bits and not four:
        text = f"no base is held in {bits.value} bits while training; lora holds it in 16"
        work.ledger.lost(bits.key, text, "set tuning.method: qlora (4 bits) or auto, if it does not fit")
    if backend and str(backend.value).lower() not in ("bnb", "bitsandbytes"):
        text = f"the base is quantized with bitsandbytes, not with {backend.value}"
        work.ledger.lost(backend.key, text, "nothing: qlora holds it in NF4")
    if name == "full":
        settle_bits(work, _BITS, "")
        return "full", ""
    if kind and name != "lora":
        text = f"there is no training of kind {name}; a LoRA adapter is written"
        todo = "keep it, or choose tuning.method: full or peft"
        work.ledger.lost(kind.key, text, todo)
    if four:
        for setting in work.settings:
            if setting.name in _BITS and not is_off(setting.value):
                work.ledger.carried(setting.key, "tuning.method")
            elif setting.name == "double_quantization":
                text = "the quantization constants are quantized as well, which saves 0.4 bits a weight"
                work.ledger.same(setting.key, text)
    settle_bits(work, _BITS, "")
    return ("qlora", "") if four else ("lora", "" if kind else "LLaMA-Factory's default.")
