"""axolotl's YAML.

Names and defaults as in its ``utils/schemas`` (0.13): https://docs.axolotl.ai/docs/config-reference.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunebuild.importers._axolotl_rows import carry_datasets
from tunebuild.importers.base import carry_base
from tunebuild.importers.method import Method, carry_adapter, settle_bits
from tunebuild.importers.refuse import other_objective
from tunebuild.importers.work import Defaults, Setting, Work, is_off


class Axolotl:
    """Reads axolotl's configurations."""

    name = "axolotl"
    title = "axolotl"
    required = frozenset(("base_model",))
    keys = frozenset(
        [
            "base_model",
            "sequence_len",
            "micro_batch_size",
            "num_epochs",
            "val_set_size",
            "adapter",
            "lora_r",
            "lora_target_linear",
            "sample_packing",
            "dataset_prepared_path",
            "saves_per_epoch",
            "evals_per_epoch",
            "special_tokens",
        ]
    )

    def defaults(self, value: Mapping[str, Any]) -> Defaults:
        """As its schemas have them; PEFT chooses targets by architecture, mostly these two."""
        return Defaults(
            rows_at_once=1,
            accumulation=1,
            epochs=1,
            learning_rate=2e-4,
            schedule="cosine",
            max_length=512,
            warmup_ratio=0.03,
            steps_first=True,
            targets=("q_proj", "v_proj"),
        )

    def settings(self, value: Mapping[str, Any]) -> Sequence[Setting]:
        """All keys at the top."""
        return [Setting(key, key, inner) for key, inner in value.items()]

    def complete(self, value: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
        """The configuration is all in one file."""
        return value

    def carry(self, work: Work) -> None:
        """Carry model, rows, template and adapter."""
        _refuse_others(work)
        carry_base(work, work.find("base_model"))
        carry_datasets(work)
        method, comment = _method(work)
        settle_bits(work, ("adapter", "load_in_4bit", "full_finetune"), "tuning.method says it")
        carry_adapter(work, method, comment)
        if not work.find("excess_length_strategy"):
            work.draft.set("data.on_long", "drop", "axolotl drops longer rows; here they are counted.")


def _refuse_others(work: Work) -> None:
    for name in ("rl", "reward_model", "process_reward_model", "diffusion"):
        setting = work.find(name)
        if setting and not is_off(setting.value):
            objective = str(setting.value) if name == "rl" else "diffusion" if name == "diffusion" else "rm"
            raise other_objective("axolotl", f"{name}: {setting.value}" if name == "rl" else name, objective)


def _method(work: Work) -> tuple[Method, str]:
    adapter, four = work.find("adapter"), work.find("load_in_4bit")
    name = str(adapter.value).lower() if adapter else ""
    eight = work.find("load_in_8bit")
    if eight and not is_off(eight.value):
        text = (
            "no base is held in 8 bits while training; lora holds it in 16, which is exact and takes "
            "twice as much"
        )
        work.ledger.lost(eight.key, text, "set tuning.method: qlora (4 bits) or auto, if it does not fit")
    elif eight:
        work.ledger.same(eight.key, "off here as well")
    if not adapter or is_off(name):
        if four and not is_off(four.value):
            text = "axolotl itself refuses a base in 4 bits without an adapter; all weights are trained"
            work.ledger.lost(four.key, text, "set tuning.method: qlora if an adapter was meant")
        return "full", "axolotl's adapter is left empty: all weights are trained."
    if name not in ("lora", "qlora"):
        text = f"there is no adapter {name}; qlora is written"
        work.ledger.lost(adapter.key, text, "see tuning.peft in docs/spec.md for other families")
        return "qlora", f"In place of {name}."
    return ("qlora", "") if name == "qlora" or (four and not is_off(four.value)) else ("lora", "")
