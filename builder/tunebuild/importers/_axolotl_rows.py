"""axolotl's data sets: where rows are, what they are made of, and the template that prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunebuild.importers.sources import Place, carry_location, carry_split, first_file
from tunebuild.importers.templates import carry_template
from tunebuild.importers.verdicts import settle_topic
from tunebuild.importers.work import Setting, Work, is_empty, is_off, shown
from tunebuild.spec.foreign import meaning_of

#: Builders of the datasets library, which axolotl takes for a path beside ``data_files``.
_BUILDERS = frozenset(("json", "csv", "parquet", "arrow", "text"))
_ROLES = {
    "user": {"user", "human"},
    "assistant": {"assistant", "gpt", "chatgpt", "bing", "model"},
    "system": {"system", "developer"},
    "tool": {"tool", "function_response", "observation"},
}
#: Keys of a turn that carry its reasoning, as tunebuild reads them.
_THINKING = frozenset(("reasoning_content", "reasoning", "thinking"))
_DATASETS = ("datasets", "test_datasets", "pretraining_dataset")


def carry_datasets(work: Work) -> None:
    """Carry all sources of rows, and choose the template that they mean."""
    kinds = []
    for name in _DATASETS:
        found = work.ledger.value.get(name)
        items = found if isinstance(found, list) else [found] if isinstance(found, Mapping) else []
        for index, item in enumerate(items):
            key = f"{name}[{index}]" if isinstance(found, list) else name
            if isinstance(item, Mapping):
                part = "eval.files" if name == "test_datasets" else "train"
                place = len(work.draft.get(f"data.{part}") or [])
                source = _Source(work, key, f"data.{part}[{place}]", item, plain=name.startswith("pre"))
                kinds.append(source.carry())
            elif not is_empty(item):
                work.ledger.lost(
                    key, f"{shown(item)} does not describe a data set", "see data.train in docs/spec.md"
                )
    if not work.draft.get("data.train"):
        work.draft.set("data.train[0].path", "rows.jsonl", "To be filled in.")
        work.note(
            "data.train: the configuration names no rows; put in a file or a hub's split", attention=True
        )
    _carry_prompt(work, kinds)


def _carry_prompt(work: Work, kinds: list[str]) -> None:
    template, own = work.find("chat_template"), work.find("chat_template_jinja")
    if own:
        text = "a template of one's own is a file beside the spec"
        todo = "save it as prompt.jinja, and set prompt.template: {file: prompt.jinja}"
        work.ledger.lost(own.key, text, todo)
        if template:
            work.ledger.same(template.key, "chat_template_jinja is the template")
        work.draft.set("prompt.template", "base", "Instead of the template in axolotl's configuration.")
        return
    headings = [kind for kind in kinds if kind == "alpaca"]
    if headings and len(headings) == len([kind for kind in kinds if kind != "text"]):
        work.draft.set(
            "prompt.template", "alpaca", "axolotl prints rows of type alpaca under Alpaca's headings."
        )
        if template:
            work.ledger.same(template.key, "rows of type alpaca are printed under Alpaca's headings")
        return
    if headings:
        text = (
            "rows of type alpaca are printed like the others, by prompt.template; axolotl has "
            "Alpaca's headings"
        )
        work.note(f"{text}: compare a few in 'tunebuild data'", attention=True)
    if template:
        carry_template(work, template)
    elif not work.draft.get("prompt.template"):
        work.draft.set("prompt.template", "base", "The model's own.")


class _Source:
    """One data set on its way into ``data.train`` or ``data.eval.files``."""

    def __init__(self, work: Work, key: str, path: str, item: Mapping[str, Any], *, plain: bool) -> None:
        self.work, self.key, self.path, self.item, self.plain = work, key, path, item, plain

    def carry(self) -> str:
        """Carry it; returns what its rows are: ``alpaca``, ``turns``, ``text`` or ``other``."""
        self._carry_place()
        kind = self._carry_form()
        for name in self.item:
            self._carry_key(str(name), kind)
        return kind

    def _has(self, name: str) -> bool:
        return not is_empty(self.item.get(name)) and self.work.ledger.is_open(f"{self.key}.{name}")

    def _carry_place(self) -> None:
        work, name, key = self.work, self.item.get("path"), f"{self.key}.path"
        if not isinstance(name, str):
            work.draft.set(f"{self.path}.path", "rows.jsonl", "To be filled in.")
            work.note(f"{self.path}: put in a file or a hub's split", attention=True)
            return
        files, file = first_file(work, f"{self.key}.data_files", self.path, self.item.get("data_files"))
        if file and name in _BUILDERS:
            carry_location(work, Place(files, self.path), file)
            work.ledger.same(key, "a file's ending says what it is")
        elif carry_location(work, Place(key, self.path), name):
            if file:
                work.draft.set(f"{self.path}.path", file)
                work.ledger.carried(files, f"{self.path}.path")
                if self._has("split"):
                    work.ledger.same(f"{self.key}.split", "a file has no splits")
            else:
                split = self.item.get("split")
                carry_split(work, f"{self.key}.split", self.path, split if isinstance(split, str) else None)
        elif self._has("split"):
            carry_split(work, f"{self.key}.split", self.path, str(self.item["split"]), of_file=True)

    def _carry_form(self) -> str:
        work, said, key = self.work, self.item.get("type"), f"{self.key}.type"
        here = f"{self.path}.format"
        if self.plain:
            work.draft.set(here, "text")
            if not is_empty(said):
                work.ledger.carried(key, here)
            return "text"
        if isinstance(said, Mapping):
            return self._carry_own_form(said, key)
        name = str(said or "").lower()
        kind, _, style = name.partition(":") if ":" in name else name.partition(".")
        if kind == "completion":
            work.draft.set(here, "text")
            work.ledger.carried(key, here, "all of it is in the loss, without a template")
            return "text"
        if kind in ("chat_template", "sharegpt") or (kind == "" and self._has("field_messages")):
            column = self.item.get("field_messages") or (
                "conversations" if kind == "sharegpt" else "messages"
            )
            work.draft.set(here, "sharegpt" if column == "conversations" else "messages")
            if self._has("field_messages"):
                work.ledger.carried(f"{self.key}.field_messages", here)
            if column not in ("conversations", "messages"):
                work.draft.set(f"{self.path}.columns", {"messages": str(column)})
            if kind:
                work.ledger.carried(key, here)
            return "turns"
        if kind == "alpaca" and style in ("", "load"):
            work.draft.set(here, "alpaca")
            work.ledger.carried(key, here)
            return "alpaca"
        work.draft.set(
            here, "auto", "Detected from the first row's columns; axolotl's type was " + shown(said) + "."
        )
        if is_empty(said):
            return "other"
        text = (
            f"there is no row format {shown(said)}; auto is written, which looks at the first row's columns"
        )
        todo = "see the formats in docs/data.md, and compare rows in 'tunebuild data'"
        work.ledger.lost(key, text, todo)
        return "other"

    def _carry_own_form(self, said: Mapping[str, Any], key: str) -> str:
        """A type that names columns and, maybe, how they are printed."""
        work, columns = self.work, {}
        for theirs, ours in (
            ("field_instruction", "instruction"),
            ("field_input", "input"),
            ("field_output", "output"),
        ):
            if isinstance(said.get(theirs), str):
                work.ledger.carried(f"{key}.{theirs}", f"{self.path}.columns.{ours}")
                if said[theirs] != ours:
                    columns[ours] = said[theirs]
        work.draft.set(f"{self.path}.format", "alpaca")
        for ours, theirs in columns.items():
            work.draft.set(f"{self.path}.columns.{ours}", theirs)
        if isinstance(said.get("system_prompt"), str) and said["system_prompt"]:
            if work.draft.get("prompt.system") in (None, said["system_prompt"]):
                work.draft.set("prompt.system", said["system_prompt"])
                work.ledger.carried(f"{key}.system_prompt", "prompt.system")
            else:
                text = "another data set has another system text, and a spec has one"
                work.ledger.lost(f"{key}.system_prompt", text, "give the rows a column 'system'")
        if isinstance(said.get("field_system"), str) and said["field_system"]:
            work.draft.set(f"{self.path}.columns.system", said["field_system"])
            work.ledger.carried(f"{key}.field_system", f"{self.path}.columns.system")
        for name in ("format", "no_input_format", "system_format"):
            if not is_empty(said.get(name)):
                text = "how a row is printed is the template's business, in training and serving alike"
                todo = "write it as a Jinja template, and set prompt.template: {file: prompt.jinja}"
                work.ledger.lost(f"{key}.{name}", text, todo)
        return "turns"

    def _carry_key(self, name: str, kind: str) -> None:
        work, key, value = self.work, f"{self.key}.{name}", self.item[name]
        if not work.ledger.is_open(key) or is_empty(value):
            return
        if name == "name":
            work.draft.set(f"{self.path}.config", str(value))
            work.ledger.carried(key, f"{self.path}.config")
        elif name == "revision":
            work.draft.set(f"{self.path}.revision", str(value))
            work.ledger.carried(key, f"{self.path}.revision")
        elif name in ("field", "text_column") and kind == "text":
            if value != "text":
                work.draft.set(f"{self.path}.columns", {"text": str(value)})
            work.ledger.carried(key, f"{self.path}.columns.text")
        elif name in ("message_property_mappings", "message_field_role", "message_field_content", "roles"):
            self._carry_turn_keys(name, key, value)
        elif name == "chat_template":
            if work.find("chat_template"):
                text = "a spec has one template for all rows, and it is the one at the top"
                work.ledger.lost(key, text, "keep to one template")
            else:
                carry_template(work, Setting(key, name, value))
        elif name in ("message_field_training", "field_thinking", "field_tools", "field_system"):
            self._carry_column(name, key, value)
        elif name == "field_messages" and kind != "turns":
            work.ledger.same(key, "rows of this type have no turns")
        elif name == "template_thinking_key":
            work.ledger.same(key, "the template's key of reasoning is found by itself")
        elif name in ("ds_type", "preprocess_shards", "trust_remote_code", "split_thinking"):
            work.ledger.same(key, "rows are read by the file's ending, and no code of a data set is run")
        elif meaning := meaning_of(name):
            if meaning.topic:
                settle_topic(work, Setting(key, name, value), meaning)
        elif is_off(value):
            work.ledger.same(key, "off here as well")

    def _carry_turn_keys(self, name: str, key: str, value: Any) -> None:
        work = self.work
        if name == "roles" and isinstance(value, Mapping):
            for role, spoken in value.items():
                names = set(map(str, spoken)) if isinstance(spoken, list) else {str(spoken)}
                if strange := names - _ROLES.get(str(role), set()):
                    text = f"turns of {', '.join(sorted(strange))} are refused: they are not known as {role}"
                    work.ledger.lost(f"{key}.{role}", text, "rename the roles in the rows")
                else:
                    work.ledger.same(f"{key}.{role}", "these roles are known")
            return
        parts = value if isinstance(value, Mapping) else {name.removeprefix("message_field_"): value}
        allowed = {"role": ("role", "from"), "content": ("content", "value")}
        for part, theirs in parts.items():
            leaf = f"{key}.{part}" if isinstance(value, Mapping) else key
            known = allowed.get(str(part), (str(part),))
            if theirs in known or (str(part) in _THINKING and theirs in _THINKING):
                work.ledger.same(leaf, f"a turn's {part} is read from '{theirs}'")
            else:
                text = f"a turn's {part} is read from {' or '.join(known)}, not from {shown(theirs)}"
                work.ledger.lost(leaf, text, f"rename {shown(theirs)} to {known[0]} in the rows")

    def _carry_column(self, name: str, key: str, value: Any) -> None:
        known = {
            "message_field_training": ("train", "weight"),
            "field_thinking": tuple(sorted(_THINKING)),
            "field_tools": ("tools",),
            "field_system": ("system",),
        }[name]
        column = name.removeprefix("field_")
        if value in known:
            self.work.ledger.same(key, f"'{value}' is read as that")
        elif column in ("tools", "system") and isinstance(value, str):
            self.work.draft.set(f"{self.path}.columns.{column}", value)
            self.work.ledger.carried(key, f"{self.path}.columns.{column}")
        else:
            text = (
                f"{name.removeprefix('message_').removeprefix('field_')} is read from "
                f"{' or '.join(known)}, not from {shown(value)}"
            )
            self.work.ledger.lost(key, text, f"rename {shown(value)} to {known[0]} in the rows")
