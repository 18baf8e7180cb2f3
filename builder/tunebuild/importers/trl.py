"""A configuration of ``trl sft --config``: the fields of SFTConfig, ModelConfig and ScriptArguments in YAML.

Names and defaults as in TRL 1.x and transformers 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunebuild.importers.base import carry_base
from tunebuild.importers.method import Method, carry_adapter, settle_bits
from tunebuild.importers.refuse import other_objective
from tunebuild.importers.sources import Place, carry_location, carry_split, first_file
from tunebuild.importers.work import Defaults, Setting, Work, is_empty, is_off, shown

#: Keys that only the other trainers of its command line have.
_OTHERS = {
    "beta": "dpo",
    "loss_weights": "dpo",
    "ref_model_mixup_alpha": "dpo",
    "desirable_weight": "kto",
    "undesirable_weight": "kto",
    "reward_funcs": "grpo",
    "num_generations": "grpo",
    "center_rewards_coefficient": "reward",
}


class Trl:
    """Reads configurations of TRL's command line."""

    name = "trl"
    title = "TRL"
    required = frozenset(("model_name_or_path",))
    keys = frozenset(
        (
            "model_name_or_path",
            "dataset_name",
            "dataset_config",
            "dataset_train_split",
            "datasets",
            "use_peft",
            "lora_r",
            "max_length",
            "per_device_train_batch_size",
            "num_train_epochs",
            "assistant_only_loss",
            "completion_only_loss",
            "test_split_size",
        )
    )

    def defaults(self, value: Mapping[str, Any]) -> Defaults:
        """As its dataclasses have them."""
        return Defaults(
            rows_at_once=8,
            accumulation=1,
            epochs=3,
            learning_rate=2e-5,
            schedule="linear",
            max_length=1024,
            rank=16,
            alpha=32,
            dropout=0.05,
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
        for name, objective in _OTHERS.items():
            if name in work.ledger.value:
                raise other_objective("TRL", name, objective)
        carry_base(work, work.find("model_name_or_path", "model"))
        _carry_rows(work)
        field = work.find("dataset_text_field")
        if field and isinstance(field.value, str):
            if field.value == "text":
                work.ledger.same(field.key, "a column 'text' is read as text, if the rows have no turns")
            else:
                work.draft.set("data.train[0].format", "text")
                work.draft.set("data.train[0].columns", {"text": field.value})
                work.ledger.carried(field.key, "data.train[0].columns.text")
        work.draft.set("data.on_long", "drop", "TRL cuts longer rows, answers too; here they are dropped.")
        if "max_length" in work.ledger.value and work.ledger.value["max_length"] is None:
            text = "TRL cuts no row then; here every row has a limit, and TRL's usual one is written"
            todo = "set tuning.max_length to the longest row, which 'tunebuild data' prints"
            work.ledger.lost("max_length", text, todo)
        if not work.find("chat_template_path"):
            work.draft.set("prompt.template", "base", "The model's own.")
        adapter = work.find("use_peft")
        method: Method = "full"
        if adapter and not is_off(adapter.value):
            four = work.find("load_in_4bit")
            method = "qlora" if four and not is_off(four.value) else "lora"
        if (eight := work.find("load_in_8bit")) and not is_off(eight.value):
            text = "no base is held in 8 bits while training; lora holds it in 16"
            work.ledger.lost(eight.key, text, "set tuning.method: qlora (4 bits) or auto, if it does not fit")
        settle_bits(work, ("use_peft", "load_in_4bit", "load_in_8bit"), "tuning.method says it")
        carry_adapter(
            work, method, "" if adapter else "TRL's default: without use_peft, all weights are trained."
        )
        if not (work.find("assistant_only_loss") or work.find("completion_only_loss")):
            text = (
                "TRL has conversations and texts in the loss as a whole, unless told otherwise; here "
                "only answers are"
            )
            work.note(text, attention=True)


def _carry_rows(work: Work) -> None:
    found = work.ledger.value.get("datasets")
    items = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    for index, item in enumerate(items):
        _carry_item(work, f"datasets[{index}]", f"data.train[{index}]", item)
    name = work.find("dataset_name")
    if name and items:
        work.ledger.same(name.key, "datasets takes precedence")
    elif name and isinstance(name.value, str):
        hub = carry_location(work, Place(name.key, "data.train[0]"), name.value)
        work.draft.set("data.train[0].format", "auto", "Detected from the first row's columns, as in TRL.")
        split, config = work.find("dataset_train_split"), work.find("dataset_config")
        text = str(split.value) if split else None
        if hub or split:
            carry_split(work, split.key if split else "", "data.train[0]", text, of_file=not hub)
        if config and hub:
            work.draft.set("data.train[0].config", str(config.value))
            work.ledger.carried(config.key, "data.train[0].config")
    if not work.draft.get("data.train"):
        work.draft.set("data.train[0].path", "rows.jsonl", "To be filled in.")
        work.note(
            "data.train: the configuration names no rows; put in a file or a hub's split", attention=True
        )
    test = work.find("dataset_test_split")
    if test:
        text = "rows of another split are held out only where data.eval.files names them"
        todo = (
            f"add data.eval.files: [{{hub: ..., split: {shown(test.value)}}}], or nothing if none "
            "were evaluated"
        )
        work.ledger.lost(test.key, text, todo)


def _carry_item(work: Work, key: str, path: str, item: Mapping[str, Any]) -> None:
    place, file = first_file(work, f"{key}.data_files", path, item.get("data_files"))
    name = str(item.get("path") or "")
    if file and name in ("json", "csv", "parquet"):
        hub = carry_location(work, Place(place, path), file)
        work.ledger.same(f"{key}.path", "a file's ending says what it is")
    else:
        hub = carry_location(work, Place(f"{key}.path", path), name)
        if hub and file:
            work.draft.set(f"{path}.path", file)
            work.ledger.carried(place, f"{path}.path")
    work.draft.set(f"{path}.format", "auto", "Detected from the first row's columns, as in TRL.")
    split = item.get("split")
    if hub and not work.draft.get(f"{path}.path"):
        carry_split(work, f"{key}.split", path, split if isinstance(split, str) else None)
    elif isinstance(split, str):
        carry_split(work, f"{key}.split", path, split, of_file=True)
    if not is_empty(item.get("name")):
        work.draft.set(f"{path}.config", str(item["name"]))
        work.ledger.carried(f"{key}.name", f"{path}.config")
    if not is_empty(item.get("columns")):
        work.ledger.same(f"{key}.columns", "columns that a format does not read are counted and left out")
    if not is_empty(item.get("fraction")):
        text = "shares of a mixture are weights of its sources here"
        work.ledger.lost(f"{key}.fraction", text, f"set {path}.weight, how often its rows are trained on")
