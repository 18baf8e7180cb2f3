"""Settings that a key of the spec says: from the foreign value to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunebuild.importers.work import Setting, Work, as_number, is_off, plain_number, shown

Converter = Callable[[Work, Setting, str], None]

_TRACKERS = ("tensorboard", "wandb", "mlflow")


def convert(work: Work, setting: Setting, path: str) -> None:
    """Carry a setting to the key of the spec that means the same, or say why not."""
    converter = _CONVERTERS.get(path)
    if converter:
        converter(work, setting, path)
    elif is_off(setting.value):
        work.ledger.same(setting.key, f"{path} is off as well, if left out")
    else:
        plain = path.replace("[]", "[0]")
        text = f"{plain} means the same, but {shown(setting.value)} cannot be translated"
        work.ledger.lost(setting.key, text, f"set {plain} yourself, if it matters")


def _number(low: float = 0.0, *, whole: bool = False, exclusive: bool = False) -> Converter:
    def converter(work: Work, setting: Setting, path: str) -> None:
        number = as_number(setting.value)
        if number is None or (whole and not float(number).is_integer()):
            work.refuse_value(setting, "a whole number" if whole else "a number")
        elif number < low or (exclusive and number == low):
            text = f"{path} must be {'more than' if exclusive else 'at least'} {low:g}, and it is {number:g}"
            work.ledger.lost(setting.key, text, "the default is used; set another value if it matters")
        else:
            work.draft.set(path, plain_number(number))
            work.ledger.carried(setting.key, path)

    return converter


def _held_out(work: Work, setting: Setting, path: str) -> None:
    number = as_number(setting.value)
    if number is None:
        work.refuse_value(setting, "a share or a number of rows")
    elif number <= 0:
        work.ledger.same(setting.key, "no rows are held out")
    elif number < 1:
        work.draft.set(path, float(number))
        work.ledger.carried(setting.key, path)
    else:
        work.draft.set(path, 0.05, f"A guess: {number:g} rows were held out.")
        text = f"{number:g} rows were held out; here it is a share, and 0.05 is written"
        work.ledger.lost(setting.key, text, f"set {path} to {number:g} divided by the number of rows")


def _on_long(work: Work, setting: Setting, path: str) -> None:
    ours = {"drop": "drop", "raise": "error", "truncate": "truncate_prompt"}.get(str(setting.value).lower())
    if ours is None:
        text = (
            "a row that is too long loses the beginning of the user's text, or is dropped; answers "
            "are never cut"
        )
        work.ledger.lost(setting.key, text, f"choose drop, truncate_prompt or error in {path}")
        return
    work.draft.set(path, ours)
    remark = "cuts the user's text, never an answer" if ours == "truncate_prompt" else ""
    work.ledger.carried(setting.key, path, remark)


def _report_to(work: Work, setting: Setting, path: str) -> None:
    if setting.name != "report_to":
        name = setting.name.removeprefix("use_")
        wanted = [name] if not is_off(setting.value) and setting.name != "log_with" else [str(setting.value)]
    else:
        wanted = [str(one) for one in (setting.value if isinstance(setting.value, list) else [setting.value])]
    wanted = [one for one in wanted if not is_off(one)]
    if is_off(setting.value) or not wanted:
        work.ledger.same(setting.key, "metrics are sent nowhere, unless tuning.report_to says so")
        return
    there = list(work.draft.get(path) or [])
    ours = [*there, *(one for one in wanted if one in _TRACKERS and one not in there)]
    if other := [one for one in wanted if one not in _TRACKERS]:
        text = f"metrics go to {', '.join(_TRACKERS)}, not to {', '.join(other)}"
        work.ledger.lost(setting.key, text, "choose one of them in tuning.report_to, if wanted")
    else:
        work.ledger.carried(setting.key, path)
    if ours:
        work.draft.set(path, ours)


def _patience(work: Work, setting: Setting, path: str) -> None:
    if not (work.draft.get("data.eval.fraction") or work.draft.get("data.eval.files")):
        text = "no rows are held out, so training never stops early"
        work.ledger.lost(setting.key, text, "set data.eval.fraction and tuning.early_stopping")
    elif path.endswith("patience"):
        _number(1, whole=True)(work, setting, path)
    else:
        _number(0)(work, setting, path)


def _checkpoints(work: Work, setting: Setting, path: str) -> None:
    if is_off(setting.value):
        work.ledger.same(setting.key, "two checkpoints are kept while training")
    else:
        _number(1, whole=True)(work, setting, path)


def _shard(work: Work, setting: Setting, path: str) -> None:
    if is_off(setting.value):
        work.ledger.same(setting.key, "one process holds the model, unless tuning.processes says otherwise")
        return
    work.ledger.lost(
        setting.key,
        "how many GPUs share the work is not in the file, so the spec is for one",
        "set tuning.processes, and tuning.shard: true if the model is too large for one GPU",
    )


def _deduplicate(work: Work, setting: Setting, path: str) -> None:
    if is_off(setting.value):
        work.draft.set(path, "off")
        work.ledger.carried(setting.key, path)
    else:
        work.ledger.same(setting.key, "equal rows are used once")


def _max_rows(work: Work, setting: Setting, path: str) -> None:
    number = as_number(setting.value)
    if number is None or number < 1:
        work.refuse_value(setting, "a number of rows")
        return
    for index in range(len(work.draft.get("data.train") or [])):
        here = f"data.train[{index}].max_rows"
        there = work.draft.get(here)
        work.draft.set(here, min(int(number), there) if there else int(number))
    work.ledger.carried(setting.key, "data.train[0].max_rows", "of each source")


def _token(work: Work, setting: Setting, path: str) -> None:
    if isinstance(setting.value, bool):
        work.ledger.same(setting.key, "the hub's own login is used")
    else:  # never shown: it may be the token
        text = "a spec never holds a token"
        work.ledger.lost(setting.key, text, "put it in HF_TOKEN, and set model.token: ${env:HF_TOKEN}")


def _text(work: Work, setting: Setting, path: str) -> None:
    if isinstance(setting.value, str):
        work.draft.set(path, setting.value)
        work.ledger.carried(setting.key, path)
    else:
        work.refuse_value(setting, "text")


def _variables(work: Work, setting: Setting, path: str) -> None:
    value: Any = setting.value
    plain = isinstance(value, Mapping) and all(
        isinstance(v, bool | int | float | str) for v in value.values()
    )
    if plain:
        work.draft.set(path, {str(name): inner for name, inner in value.items()})
        work.ledger.carried(setting.key, path)
    else:
        work.refuse_value(setting, "a mapping of plain values")


def _revision(work: Work, setting: Setting, path: str) -> None:
    if work.draft.get("model.base") and str(work.draft.get("model.base")).startswith("./"):
        work.ledger.same(setting.key, "a directory has no revision")
    else:
        _text(work, setting, path)


def _template_file(work: Work, setting: Setting, path: str) -> None:
    value = setting.value
    if isinstance(value, str) and value.endswith((".jinja", ".jinja2", ".j2")) and "\n" not in value:
        work.draft.set(path, {"file": str(Path(value))})
        work.ledger.carried(setting.key, f"{path}.file")
        return
    text = "a template of one's own is a file beside the spec"
    work.ledger.lost(
        setting.key, text, "save it as prompt.jinja, and set prompt.template: {file: prompt.jinja}"
    )


def _share(work: Work, setting: Setting, path: str) -> None:
    number = as_number(setting.value)
    if number is not None and 0 < number <= 1:
        work.draft.set(path, float(number))
        work.ledger.carried(setting.key, path)
    else:
        work.refuse_value(setting, "a share between 0 and 1")


_CONVERTERS: Mapping[str, Converter] = {
    "serving.defaults.max_tokens": _number(1, whole=True),
    "serving.defaults.temperature": _number(0),
    "serving.defaults.top_p": _share,
    "serving.limits.context": _number(16, whole=True),
    "tuning.learning_rate": _number(0, exclusive=True),
    "tuning.weight_decay": _number(0),
    "tuning.max_grad_norm": _number(0, exclusive=True),
    "tuning.max_length": _number(8, whole=True),
    "tuning.seed": _number(0, whole=True),
    "tuning.early_stopping.patience": _patience,
    "tuning.early_stopping.min_delta": _patience,
    "tuning.checkpoints": _checkpoints,
    "tuning.report_to": _report_to,
    "tuning.shard": _shard,
    "tuning.processes": _number(1, whole=True),
    "tuning.nodes": _number(1, whole=True),
    "data.eval.fraction": _held_out,
    "data.on_long": _on_long,
    "data.deduplicate": _deduplicate,
    "data.train[].max_rows": _max_rows,
    "model.revision": _revision,
    "model.token": _token,
    "prompt.system": _text,
    "prompt.template": _template_file,
    "prompt.variables": _variables,
}

#: Keys that one setting decides; of the others several are added up, or settled by what they are.
SINGLE = frozenset(_CONVERTERS) - {
    "data.train[].max_rows",
    "model.token",
    "tuning.report_to",
    "tuning.shard",
}
