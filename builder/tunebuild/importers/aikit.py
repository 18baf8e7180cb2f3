"""AIKit's fine-tuning YAML, ``apiVersion: v1alpha1`` with ``baseModel`` and ``config.unsloth``.

Names and defaults as in its ``pkg/aikit/config/finetune_specs.go``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunebuild.importers.base import carry_base
from tunebuild.importers.method import carry_adapter, settle_bits
from tunebuild.importers.refuse import other_objective
from tunebuild.importers.sources import Place, carry_location, carry_split
from tunebuild.importers.work import Defaults, Setting, Work, is_empty, is_off, shown, slug

_FORMATS = {
    "alpaca": "alpaca",
    "messages": "messages",
    "sharegpt": "sharegpt",
    "prompt-completion": "prompt_completion",
    "text": "text",
}
#: AIKit's names whose like in other tools is called otherwise, after camel case is undone.
_NAMES = {"batch_size": "micro_batch_size", "optimizer": "optim", "load_in4bit": "load_in_4bit"}
_UNSLOTH = "config.unsloth"


class AIKit:
    """Reads AIKit's fine-tuning configurations."""

    name = "aikit"
    title = "AIKit"
    required = frozenset(("baseModel",))
    keys = frozenset(("baseModel", "apiVersion", "datasets", "objective", "output"))

    def defaults(self, value: Mapping[str, Any]) -> Defaults:
        """As its Go types and its Unsloth script have them."""
        return Defaults(
            rows_at_once=2,
            accumulation=4,
            epochs=1,
            max_steps=60,
            learning_rate=2e-4,
            schedule="linear",
            max_length=2048,
            warmup_steps=10,
            weight_decay=0.01,
            rank=16,
            alpha=16,
            targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        )

    def settings(self, value: Mapping[str, Any]) -> Sequence[Setting]:
        """Those of ``config.unsloth``, in snake case, besides the keys at the top."""
        config = value.get("config")
        inner = config.get("unsloth") if isinstance(config, Mapping) else None
        settings = [Setting(key, key, one) for key, one in value.items() if key != "config"]
        for key, one in inner.items() if isinstance(inner, Mapping) else ():
            name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(key)).lower()
            settings.append(Setting(f"{_UNSLOTH}.{key}", _NAMES.get(name, name), one))
        return settings

    def complete(self, value: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
        """The configuration is all in one file."""
        return value

    def carry(self, work: Work) -> None:
        """Carry model, rows, loss, adapter and output."""
        value, ledger = work.ledger.value, work.ledger
        _refuse_others(work)
        ledger.same("apiVersion", "the version of AIKit's language")
        carry_base(work, work.find("baseModel"))
        whole = _carry_datasets(work)
        _carry_loss(work, whole)
        four = work.find("load_in_4bit")
        full_bits = four is not None and is_off(four.value)
        carry_adapter(work, "lora" if full_bits else "qlora", "" if four else "AIKit's default.")
        if four:
            ledger.carried(four.key, "tuning.method")
        settle_bits(work, ("load_in_4bit",), "")
        work.draft.set("prompt.template", "base", "The model's own, by which AIKit prints conversations.")
        if all(one.get("type") == "alpaca" for one in _datasets(work)) and _datasets(work):
            work.draft.set(
                "prompt.template", "alpaca", "AIKit prints rows of type alpaca under Alpaca's headings."
            )
        if isinstance(value.get("output"), Mapping):
            _carry_output(work, value["output"])
        if not is_empty(value.get("target")):
            ledger.same("target", "tunebuild trains with its own loop")


def _refuse_others(work: Work) -> None:
    objective = work.ledger.value.get("objective")
    kind = objective.get("type") if isinstance(objective, Mapping) else objective
    if kind not in (None, "sft"):
        raise other_objective("AIKit", f"objective.type: {kind}", str(kind))
    if any(one.get("type") == "preference" for one in _datasets(work)):
        raise other_objective("AIKit", "a data set of type: preference", "dpo")
    work.ledger.same("objective", "tunebuild fine-tunes on answers")


def _datasets(work: Work) -> list[Mapping[str, Any]]:
    found = work.ledger.value.get("datasets")
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _carry_datasets(work: Work) -> bool:
    """Carry all sources; returns whether AIKit has whole rows of one of them in the loss."""
    whole = False
    for index, item in enumerate(_datasets(work)):
        key, path = f"datasets[{index}]", f"data.train[{index}]"
        kind = str(item.get("type") or "")
        loader = item.get("loader") if isinstance(item.get("loader"), Mapping) else {}
        assert isinstance(loader, Mapping)
        work.draft.set(f"{path}.format", _FORMATS.get(kind, "auto"))
        if kind in _FORMATS:
            work.ledger.carried(f"{key}.type", f"{path}.format")
        else:
            text = f"there is no row format {shown(kind)}; auto is written"
            work.ledger.lost(f"{key}.type", text, "see the formats in docs/data.md")
        whole = whole or kind in ("alpaca", "messages", "sharegpt")
        if isinstance(item.get("source"), str) and carry_location(
            work, Place(f"{key}.source", path), item["source"]
        ):
            split = loader.get("split")
            carry_split(work, f"{key}.loader.split", path, split if isinstance(split, str) else None)
        for name, value in loader.items():
            _carry_loader(work, f"{key}.loader.{name}", path, str(name), value)
    if not work.draft.get("data.train"):
        work.draft.set("data.train[0].path", "rows.jsonl", "To be filled in.")
        work.note(
            "data.train: the configuration names no rows; put in a file or a hub's split", attention=True
        )
    work.draft.set("data.on_long", "error", "AIKit stops at a longer row, too.")
    return whole


def _carry_loader(work: Work, key: str, path: str, name: str, value: Any) -> None:
    if is_empty(value):
        return
    if name in ("subset", "revision"):
        ours = {"subset": "config", "revision": "revision"}[name]
        work.draft.set(f"{path}.{ours}", str(value))
        work.ledger.carried(key, f"{path}.{ours}")
    elif name == "type":
        work.ledger.same(key, "a file's ending says what it is")
    elif name == "split":
        work.ledger.same(key, "a file has no splits, and all of it is read")
    elif name == "checksum":
        text = "a spec holds no checksum of rows"
        work.ledger.lost(key, text, "compare it once, then 'tunebuild lock' pins the file by its digest")


def _carry_loss(work: Work, whole: bool) -> None:
    loss = work.find("loss")
    if loss and loss.value == "response":
        work.ledger.same(loss.key, "answers and their end tokens are in the loss, prompts are not")
    elif loss:
        text = (
            f"loss is {shown(loss.value)}; here answers and their end tokens are in the loss, prompts never"
        )
        todo = "nothing, if only answers should be learned; else write rows as text and name format: text"
        work.ledger.lost(loss.key, text, todo)
    elif whole:
        work.note("AIKit's default has prompts in the loss as well; here only answers are", attention=True)


def _carry_output(work: Work, output: Mapping[str, Any]) -> None:
    for name, value in output.items():
        key = f"output.{name}"
        if is_empty(value):
            continue
        if name == "name":
            work.draft.set("name", slug(str(value)) or "model")
            work.ledger.carried(key, "name")
        elif name == "format" and value == "adapter":
            work.draft.set("outputs", ["image", "adapter"])
            work.ledger.carried(key, "outputs", "beside the image, which is always built")
        elif name == "format" or name == "quantize":
            text = "no GGUF is written; the image serves the merged weights in 16 bits"
            work.ledger.lost(key, text, "for fewer bits, see exports in docs/exports.md (GPTQ, AWQ)")
