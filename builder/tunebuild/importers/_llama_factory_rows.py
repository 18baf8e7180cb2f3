"""LLaMA-Factory's data sets: names in the YAML, and what ``dataset_info.json`` says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.importers.refuse import other_objective
from tunebuild.importers.sources import Place, carry_location, carry_split
from tunebuild.importers.work import Work, as_number, is_empty, shown

_FILE = "dataset_info.json"
_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}
#: What roles are called unless ``tags`` says otherwise, and what they may be called here.
_TAGS = {
    "role_tag": ("from", "role"),
    "content_tag": ("value", "content"),
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant", "chatgpt", "bing", "model"),
    "observation_tag": ("observation", "tool", "function_response"),
    "system_tag": ("system", "developer"),
}
_MEDIA = ("images", "videos", "audios")


def described(value: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The entries of ``dataset_info.json`` that a configuration names; none if there is no such file."""
    info = _info(value, file)
    if info is None:
        return {}
    try:
        entries = json.loads(info.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        hint = "repair it, or move it away to name the data sets yourself"
        raise fail("import-datasets", f"{info} is not JSON that can be read: {error}", hint) from None
    if not isinstance(entries, Mapping):
        raise fail(
            "import-datasets", f"{info} is not a mapping of data sets", "see LLaMA-Factory's data/README.md"
        )
    names = [*names_of(value.get("dataset")), *names_of(value.get("eval_dataset"))]
    return {name: entries[name] for name in dict.fromkeys(names) if isinstance(entries.get(name), Mapping)}


def names_of(value: Any) -> list[str]:
    """Names of data sets, which may be separated by commas."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [part.strip() for part in map(str, parts) if part.strip()]


def _info(value: Mapping[str, Any], file: Path) -> Path | None:
    folder = value.get("dataset_dir")
    named = (
        [folder]
        if isinstance(folder, str) and "://" not in folder and not folder.startswith("REMOTE:")
        else []
    )
    for start in (file.parent, Path.cwd()):
        for inside in (*named, "data", ""):
            try:
                if (info := start / inside / _FILE).is_file():
                    return info
            except (OSError, ValueError):
                continue
    return None


def carry_datasets(work: Work, *, plain: bool) -> None:
    """Carry all sources of rows.

    Args:
        work: the import.
        plain: whether rows are text without a conversation, as in its stage ``pt``.
    """
    entries = work.ledger.value.get("dataset_info") or {}
    for name, part in (("dataset", "train"), ("eval_dataset", "eval.files")):
        setting = work.find(name)
        if setting is None:
            continue
        for index, one in enumerate(names_of(setting.value)):
            path = f"data.{part}[{index}]"
            if isinstance(entries.get(one), Mapping):
                _Entry(work, one, path, entries[one], plain=plain).carry()
            else:
                _carry_unknown(work, one, path)
        work.ledger.carried(setting.key, f"data.{part}")
    if not work.draft.get("data.train"):
        work.draft.set("data.train[0].path", "rows.jsonl", "To be filled in.")
        work.note(
            "data.train: the configuration names no data set; put in a file or a hub's split", attention=True
        )


def _carry_unknown(work: Work, name: str, path: str) -> None:
    work.draft.set(f"{path}.path", f"{name}.json", f"To be filled in: LLaMA-Factory's data set {name}.")
    text = (
        f"{path}: no {_FILE} that describes '{name}' is beside the configuration; put in its file and format"
    )
    work.note(text, attention=True)


class _Entry:
    """One data set of ``dataset_info.json``."""

    def __init__(self, work: Work, name: str, path: str, item: Mapping[str, Any], *, plain: bool) -> None:
        self.work, self.key, self.path, self.item, self.plain = (
            work,
            f"dataset_info.{name}",
            path,
            item,
            plain,
        )

    def carry(self) -> None:
        """Carry file or repository, format, columns and roles."""
        if self.item.get("ranking"):
            raise other_objective(
                "LLaMA-Factory", f"the data set {self.key.partition('.')[2]} with ranking: true", "dpo"
            )
        self._carry_place()
        form = self._carry_form()
        for name, value in self._inside("columns"):
            self._carry_column(name, value, form)
        for name, value in self._inside("tags"):
            self._carry_tag(name, value)
        count = as_number(self.item.get("num_samples"))
        if count:
            self.work.draft.set(f"{self.path}.max_rows", int(count))
            self.work.ledger.carried(f"{self.key}.num_samples", f"{self.path}.max_rows")

    def _inside(self, name: str) -> Iterator[tuple[str, Any]]:
        inner = self.item.get(name)
        yield from inner.items() if isinstance(inner, Mapping) else ()

    def _carry_place(self) -> None:
        work, item = self.work, self.item
        if isinstance(item.get("hf_hub_url"), str):
            carry_location(work, Place(f"{self.key}.hf_hub_url", self.path), item["hf_hub_url"])
            for other in ("file_name", "script_url", "ms_hub_url", "om_hub_url", "cloud_file_name"):
                if other in item:
                    work.ledger.same(f"{self.key}.{other}", "the hub's repository takes precedence")
            split = item.get("split")
            carry_split(work, f"{self.key}.split", self.path, split if isinstance(split, str) else None)
            if item.get("subset"):
                work.draft.set(f"{self.path}.config", str(item["subset"]))
                work.ledger.carried(f"{self.key}.subset", f"{self.path}.config")
            return
        for name in ("file_name", "cloud_file_name", "script_url", "ms_hub_url", "om_hub_url"):
            if not isinstance(item.get(name), str):
                continue
            key = f"{self.key}.{name}"
            if name in ("file_name", "cloud_file_name"):
                folder = str(work.ledger.value.get("dataset_dir") or "data")
                carry_location(work, Place(key, self.path), item[name], folder=folder)
            else:
                work.draft.set(f"{self.path}.path", "rows.jsonl", "To be filled in.")
                text = f"rows are read from files or the hub, not from {name}: {shown(item[name])}"
                work.ledger.lost(
                    key, text, f"write them to a file beside the spec, and put it in {self.path}.path"
                )
            if item.get("split"):
                split = str(item["split"])
                carry_split(work, f"{self.key}.split", self.path, split, of_file=True)
            return
        work.draft.set(f"{self.path}.path", "rows.jsonl", "To be filled in.")
        work.note(f"{self.path}: {self.key} names no file", attention=True)

    def _carry_form(self) -> str:
        work, said = self.work, str(self.item.get("formatting") or "alpaca")
        here = f"{self.path}.format"
        form = (
            "text"
            if self.plain
            else {"alpaca": "alpaca", "sharegpt": "sharegpt", "openai": "messages"}.get(said)
        )
        if form == "sharegpt" and dict(self._inside("columns")).get("messages") == "messages":
            form = "messages"
        work.draft.set(here, form or "auto")
        if "formatting" in self.item and form:
            work.ledger.carried(f"{self.key}.formatting", here)
        elif "formatting" in self.item:
            text = f"there is no row format {said}; auto is written"
            work.ledger.lost(f"{self.key}.formatting", text, "see the formats in docs/data.md")
        return form or "auto"

    def _carry_column(self, name: str, value: Any, form: str) -> None:
        work, key = self.work, f"{self.key}.columns.{name}"
        if is_empty(value):
            work.ledger.same(key, "left empty, which sets nothing")
        elif name in _MEDIA:
            work.ledger.lost(
                key, "rows are text: images, video and audio are not read", "leave such rows out"
            )
        elif name in ("chosen", "rejected", "kto_tag"):
            raise other_objective(
                "LLaMA-Factory", f"the column {name}", "kto" if name == "kto_tag" else "dpo"
            )
        elif name in ("system", "tools", "history"):
            if value == name:
                work.ledger.same(key, f"a column '{name}' is read as that")
            elif name in ("system", "tools" if form in ("sharegpt", "messages") else "history"):
                self._map(name, value, key)
            else:
                work.ledger.same(key, f"rows of format {form} have no such column")
        elif form == "text" and name == "prompt":
            self._map("text", value, key)
        elif form == "alpaca" and name in _COLUMNS:
            self._map(_COLUMNS[name], value, key)
        elif form in ("sharegpt", "messages") and name == "messages":
            self._map("conversations" if form == "sharegpt" else "messages", value, key)
        else:
            work.ledger.same(key, f"rows of format {form} have no such column")

    def _map(self, ours: str, theirs: Any, key: str) -> None:
        if theirs != ours:
            self.work.draft.set(f"{self.path}.columns.{ours}", str(theirs))
            self.work.ledger.carried(key, f"{self.path}.columns.{ours}")
        else:
            self.work.ledger.carried(key, f"{self.path}.format")

    def _carry_tag(self, name: str, value: Any) -> None:
        key, known = f"{self.key}.tags.{name}", _TAGS.get(name, ())
        if value in known:
            self.work.ledger.same(key, f"'{value}' is known as that")
        elif name == "function_tag":
            text = "calls are turns of the assistant with tool_calls, not turns of a role of their own"
            self.work.ledger.lost(key, text, "write tool_calls in the rows, see docs/data.md")
        elif known:
            text = f"{name} is {' or '.join(known)} here, not {shown(value)}"
            self.work.ledger.lost(key, text, f"rename {shown(value)} to {known[0]} in the rows")
