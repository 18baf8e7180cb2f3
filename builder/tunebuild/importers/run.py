"""From a file of another tool to a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.importers import _yaml
from tunebuild.importers.aikit import AIKit
from tunebuild.importers.axolotl import Axolotl
from tunebuild.importers.convert import SINGLE, convert
from tunebuild.importers.ledger import Ledger, Unresolved
from tunebuild.importers.llama_factory import LlamaFactory
from tunebuild.importers.protocol import Importer
from tunebuild.importers.result import Imported, Notice
from tunebuild.importers.steps import carry_steps
from tunebuild.importers.trl import Trl
from tunebuild.importers.unsloth import Unsloth, script_settings
from tunebuild.importers.verdicts import settle_topic
from tunebuild.importers.work import Setting, Work, as_number, is_empty, slug
from tunebuild.importers.write import spec_text
from tunebuild.spec.foreign import meaning_of
from tunebuild.spec.load import problems_of

#: One object for each tool, in the order in which they are asked.
IMPORTERS: tuple[Importer, ...] = (Axolotl(), LlamaFactory(), AIKit(), Unsloth(), Trl())
SCRIPT_ENDINGS = (".py", ".ipynb")

_MOST_BYTES = 16 << 20
_PLAIN_NAMES = frozenset(
    [
        "config",
        "configuration",
        "lora",
        "qlora",
        "fft",
        "full",
        "train",
        "training",
        "finetune",
        "fine-tune",
        "sft",
        "spec",
        "axolotl",
        "unsloth",
        "aikit",
        "aikitfile",
        "llamafactory",
        "llama-factory",
        "notebook",
        "main",
        "run",
        "test",
        "example",
        "examples",
        "script",
    ]
)


def import_config(file: Path, tool: str | None = None, target: Path | None = None) -> Imported:
    """Turn another tool's configuration into a spec.

    Args:
        file: a YAML file, a Python script or a notebook; a script is read, never run.
        tool: name of an importer; told from the file's keys if left out.
        target: where the spec is going to be; beside ``file`` if left out.

    Raises:
        TunebuildError: it cannot be read, is no known tool's, or trains on something else than answers.
    """
    text = _read(file)
    notices: tuple[Notice, ...] = ()
    if tool == Unsloth.name or (tool is None and file.suffix.lower() in SCRIPT_ENDINGS):
        importer: Importer = next(one for one in IMPORTERS if one.name == Unsloth.name)
        value, notices = script_settings(text, str(file))
    else:
        value, importer = _recognized(file, text, tool)
        value = importer.complete(value, file)
    directory = (target or file).resolve().parent
    work = Work(
        importer.title, file, directory, Ledger(value), importer.defaults(value), importer.settings(value)
    )
    work.notices += notices
    importer.carry(work)
    carry_rest(work)
    _name(work)
    spec = spec_text(work.draft, [f"Imported from {importer.title}'s {file.name} by 'tunebuild import'."])
    noted = {notice.text.partition(":")[0] for notice in work.notices if notice.attention}
    for problem in problems_of(spec, target or directory / "spec.yaml"):
        if not problem.path or not any(problem.path.startswith(path) for path in noted):
            work.note(f"{problem.path}: {problem.text}" if problem.path else problem.text, attention=True)
    ledger = work.ledger
    return Imported(
        importer.title, str(file), spec, tuple(ledger.leaves), ledger.outcomes, tuple(work.notices)
    )


def carry_rest(work: Work) -> None:
    """Settle everything that an importer has left open."""
    for setting in work.settings:
        if is_empty(setting.value):
            work.ledger.same(setting.key, "left empty, which sets nothing")
    _convert_below(work, "data.")
    carry_steps(work)  # which asks how many rows there are
    _carry_defaults(work)
    _convert_below(work, "")
    for setting in work.settings:  # some of which depend on whether rows are held out
        meaning = meaning_of(setting.name)
        if meaning and meaning.topic and work.ledger.is_open(setting.key):
            settle_topic(work, setting, meaning)
    for key, value in work.ledger.leaves.items():
        if is_empty(value):
            work.ledger.same(key, "left empty, which sets nothing")
        elif isinstance(value, Unresolved) and key.rpartition(".")[2].startswith("**"):
            text = f"only running the script would tell what `{value.source}` sets"
            work.ledger.lost(key, text, "put what it sets in the spec yourself")
        else:
            text = "this importer does not know the key, and nothing in the spec comes from it"
            todo = f"look up what it does in {work.tool}, and find its like in docs/spec.md if it matters"
            work.ledger.lost(key, text, todo)


def _convert_below(work: Work, section: str) -> None:
    found: dict[str, list[Setting]] = {}
    for setting in work.settings:
        meaning = meaning_of(setting.name)
        if meaning and meaning.path and meaning.path.startswith(section) and work.ledger.is_open(setting.key):
            found.setdefault(meaning.path, []).append(setting)
    for path, settings in found.items():
        chosen = _chosen(path, settings)
        for setting in settings:
            if isinstance(setting.value, Unresolved):
                work.refuse_value(setting, path.replace("[]", "[0]"))
            elif path in SINGLE and chosen and not _equal(setting.value, chosen.value):
                text = f"{path} is one value, and {chosen.key} gives it another"
                work.ledger.lost(setting.key, text, f"set {path}, if that of {setting.key} was meant")
            else:
                convert(work, setting, path)


def _chosen(path: str, settings: Sequence[Setting]) -> Setting | None:
    """Of settings for one key, the one that is called as it is here, else the last, as of arguments."""
    known = [one for one in settings if not isinstance(one.value, Unresolved)]
    alike = [one for one in known if one.name == path.rpartition(".")[2]]
    return next(reversed(alike or known), None)


def _equal(one: Any, other: Any) -> bool:
    number = as_number(one)
    return one == other if number is None else number == as_number(other)


def _carry_defaults(work: Work) -> None:
    """Write what the tool does by default where that differs from what a spec means by silence."""
    silent = f"{work.tool}'s default."
    work.draft.set("tuning.learning_rate", work.defaults.learning_rate, silent)
    work.draft.set("tuning.max_length", work.defaults.max_length, silent)
    work.draft.set("tuning.seed", work.defaults.seed, silent)
    if work.defaults.weight_decay:
        work.draft.set("tuning.weight_decay", work.defaults.weight_decay, silent)


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise fail("no-file", f"there is no file {file}", "give another tool's configuration") from None
    except IsADirectoryError:
        raise fail("no-file", f"{file} is a directory", "give the configuration file in it") from None
    except OSError as error:
        raise fail("no-file", f"cannot read {file}: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise fail("import-size", f"{file} is larger than 16 MiB, so it is not a configuration")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise fail(
            "import-format", f"{file} is not UTF-8 text", "give YAML, a script or a notebook"
        ) from None


def _recognized(file: Path, text: str, tool: str | None) -> tuple[Mapping[str, Any], Importer]:
    value = _yaml.load(text, str(file))
    if tool:
        return value, next(importer for importer in IMPORTERS if importer.name == tool)
    if value.get("apiVersion") == "tunebuild/v1":
        hint = f"run 'tunebuild validate {file}'"
        raise fail("import-format", f"{file} is a tunebuild spec already", hint)
    names = frozenset(value)
    likely = [importer for importer in IMPORTERS if importer.required <= names]
    if not likely:
        known = ", ".join(importer.title for importer in IMPORTERS)
        names_shown = ", ".join(sorted(names)[:5]) or "nothing"
        message = f"{file} is not a configuration of {known} that names a model; its keys are {names_shown}"
        raise fail("import-format", message, "if it is one all the same, name the tool with --from")
    return value, max(likely, key=lambda importer: len(importer.keys & names))


def _name(work: Work) -> None:
    """Give the spec a name and a version."""
    work.draft.set("apiVersion", "tunebuild/v1")
    if work.draft.get("name"):
        return
    stem = slug(work.source.stem)
    base = slug(str(work.draft.get("model.base") or "").rpartition("/")[2])
    plain = not stem or stem in _PLAIN_NAMES or set(stem.split("-")) <= _PLAIN_NAMES
    work.draft.set("name", (f"{base}-tuned" if base and plain else stem or "model")[:63].strip("-._"))
    work.draft.remark("name", "The model's name in the endpoint, and the image's; choose one.")
