"""Rows, template and trainer of a script that uses Unsloth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunebuild.importers.ledger import Unresolved
from tunebuild.importers.sources import Place, carry_location, carry_split, first_file
from tunebuild.importers.templates import carry_template
from tunebuild.importers.work import Setting, Work, as_number, is_empty, shown

_BUILDERS = frozenset(("json", "csv", "parquet"))
_OBJECTS = frozenset(
    ("model", "tokenizer", "processing_class", "args", "train_dataset", "trainer", "processor")
)
_HELD_OUT = re.compile(r"(?:test|val|valid|validation|eval|dev)(?![a-z])", re.IGNORECASE)
_RESPONSES = "train_on_responses_only"
#: Where the settings say that rows are printed by the notebooks' usual Alpaca text.
ALPACA = "alpaca_prompt"
_IN_CODE = "Formed by code in the script, which is not run: name the format, or write the rows as JSON lines."


def carry_rows(work: Work) -> None:
    """Carry each data set that the script loads."""
    found = work.ledger.value.get("load_dataset")
    loaded = found if isinstance(found, list) else []
    trains = [item for item in loaded if not _is_held_out(item)]
    for index, item in enumerate(loaded):
        part = "eval.files" if trains and _is_held_out(item) else "train"
        place = len(work.draft.get(f"data.{part}") or [])
        _carry_loaded(work, f"load_dataset[{index}]", f"data.{part}[{place}]", item)
    if not work.draft.get("data.train"):
        work.draft.set("data.train[0].path", "rows.jsonl", "To be filled in.")
        work.note(
            "data.train: the script does not call load_dataset; put in a file or a hub's split",
            attention=True,
        )
    text = "rows are formed by code in the script, which is not run: see what they hold with 'tunebuild data'"
    work.note(f"data.train[0].format: auto. {text}", attention=True)
    _carry_held_out(work)


def _is_held_out(item: Mapping[str, Any]) -> bool:
    """Whether a data set is one to evaluate on, by its split's name."""
    split = item.get("split")
    return isinstance(split, str) and _HELD_OUT.match(split) is not None


def _carry_loaded(work: Work, key: str, path: str, item: Mapping[str, Any]) -> None:
    name, split = item.get("path"), item.get("split")
    place, file = first_file(work, f"{key}.data_files", path, item.get("data_files"))
    hub = False
    if isinstance(name, str) and name in _BUILDERS and file:
        carry_location(work, Place(place, path), file)
        work.ledger.same(f"{key}.path", "a file's ending says what it is")
    elif isinstance(name, str):
        hub = carry_location(work, Place(f"{key}.path", path), name)
        if hub and file:
            work.draft.set(f"{path}.path", file)
            work.ledger.carried(place, f"{path}.path")
            hub = False
    else:
        work.draft.set(f"{path}.path", "rows.jsonl", "To be filled in.")
        work.refuse_value(Setting(f"{key}.path", "path", name), "the name of a data set")
        work.note(f"{path}: put in a file or a hub's split", attention=True)
    work.draft.set(f"{path}.format", "auto", _IN_CODE)
    if isinstance(split, Unresolved):
        work.refuse_value(Setting(f"{key}.split", "split", split), "a split")
    if hub or isinstance(split, str):
        carry_split(work, f"{key}.split", path, split if isinstance(split, str) else None, of_file=not hub)
    for part, ours in (("name", "config"), ("revision", "revision")):
        if isinstance(item.get(part), str):
            work.draft.set(f"{path}.{ours}", item[part])
            work.ledger.carried(f"{key}.{part}", f"{path}.{ours}")
    if "token" in item:
        text = "a spec never holds a token"
        work.ledger.lost(f"{key}.token", text, f"put it in HF_TOKEN, and set {path}.token: ${{env:HF_TOKEN}}")
    for part, reason in (
        ("num_proc", "rows are tokenized on all cores"),
        ("streaming", "rows are read one by one"),
    ):
        if part in item:
            work.ledger.same(f"{key}.{part}", reason)


def _carry_held_out(work: Work) -> None:
    split = work.ledger.value.get("train_test_split")
    size = split.get("test_size") if isinstance(split, Mapping) else None
    if size is not None:
        number = as_number(size)
        key = "train_test_split.test_size"
        if number is not None and 0 < number < 1:
            work.draft.set("data.eval.fraction", float(number))
            work.ledger.carried(key, "data.eval.fraction")
        else:
            text = f"{shown(size)} rows were held out; here it is a share, and 0.05 is written"
            work.draft.set("data.eval.fraction", 0.05, f"A guess: {shown(size)} rows were held out.")
            work.ledger.lost(key, text, "set data.eval.fraction to their share of all rows")
    for name in ("seed", "shuffle"):
        work.ledger.same(f"train_test_split.{name}", "tuning.seed chooses the rows that are held out")


def carry_trainer(work: Work, trainers: Sequence[str]) -> None:
    """Settle what a trainer is given besides numbers and words."""
    ledger = work.ledger
    for call in (*trainers, "get_peft_model", "get_chat_template", _RESPONSES):
        inner = ledger.value.get(call)
        for name, value in inner.items() if isinstance(inner, Mapping) else ():
            key = f"{call}.{name}"
            if name in _OBJECTS:
                ledger.same(key, "an object of the script's own")
            elif name == "eval_dataset" and not is_empty(value):
                if work.draft.get("data.eval.fraction"):
                    ledger.carried(key, "data.eval.fraction")
                elif work.draft.get("data.eval.files"):
                    ledger.carried(key, "data.eval.files")
                else:
                    text = "which rows are held out is decided in the script"
                    ledger.lost(key, text, "set data.eval.fraction or data.eval.files")
            elif name == "data_collator" and not is_empty(value):
                _carry_collator(work, key, value)
            elif name in ("formatting_func", "callbacks", "compute_metrics", "optimizers") and not is_empty(
                value
            ):
                text = "code of the script is not run"
                ledger.lost(
                    key, text, "write the rows as JSON lines" if name == "formatting_func" else "see gates"
                )


def _carry_collator(work: Work, key: str, value: Any) -> None:
    source = value.source if isinstance(value, Unresolved) else str(value)
    if "Vision" in source:
        text = "rows are text, and the text part of a multimodal model is tuned; images are not read"
        work.ledger.lost(key, text, "import it for its text rows alone, or keep to the other tool")
    elif "Seq2Seq" in source or "LanguageModeling" in source:
        work.ledger.same(key, "rows are packed, or padded to equal lengths")
    else:
        text = "how rows become batches is decided in the script"
        work.ledger.lost(key, text, "nothing, if it only pads")


def carry_prompt(work: Work) -> None:
    """Carry the template, and say whether prompts were in the loss."""
    ledger, template = work.ledger, work.ledger.value.get("get_chat_template")
    named = template.get("chat_template") if isinstance(template, Mapping) else None
    if named is not None:
        carry_template(work, Setting("get_chat_template.chat_template", "chat_template", named))
    if isinstance(template, Mapping):
        _carry_mapping(work, template.get("mapping"))
        ledger.same("get_chat_template.map_eos_token", "answers end with the template's own end token")
    if not work.draft.get("prompt.template") and ALPACA in ledger.value:
        work.draft.set("prompt.template", "alpaca", "The script prints rows under Alpaca's headings.")
        ledger.carried(ALPACA, "prompt.template", "Alpaca's headings")
    ledger.same(ALPACA, "the chat template prints the rows")
    if not work.draft.get("prompt.template"):
        comment = "The model's own; the script may print rows in another form."
        work.draft.set("prompt.template", "base", comment)
    only = isinstance(ledger.value.get(_RESPONSES), Mapping)
    ledger.same(_RESPONSES, "answers and their end tokens are in the loss, prompts are not")
    for setting in work.settings:
        if setting.name == "dataset_text_field":
            if only:
                ledger.same(setting.key, "rows are printed by the template, and answers are in the loss")
            elif not is_empty(setting.value):
                text = (
                    "the script prints rows itself, and all of the text is in the loss; here only answers are"
                )
                todo = (
                    "nothing, if only answers should be learned; else write the texts as rows, format: text"
                )
                ledger.lost(setting.key, text, todo)


def _carry_mapping(work: Work, mapping: Any) -> None:
    key = "get_chat_template.mapping"
    known = {
        "role": ("from", "role"),
        "content": ("value", "content"),
        "user": ("human", "user"),
        "assistant": ("gpt", "assistant", "model", "chatgpt"),
        "system": ("system", "developer"),
    }
    for part, theirs in mapping.items() if isinstance(mapping, Mapping) else ():
        if theirs in known.get(str(part), ()):
            work.ledger.same(f"{key}.{part}", f"'{theirs}' is read as that")
        else:
            text = f"{part} is {' or '.join(known.get(str(part), ('unknown',)))} here, not {shown(theirs)}"
            work.ledger.lost(f"{key}.{part}", text, "rename it in the rows")
