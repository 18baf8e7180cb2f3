"""What is trained: an adapter of which size on which modules, on a base in how many bits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from tunebuild.importers.work import Setting, Work, is_off, shown

Method = Literal["qlora", "lora", "full"]

#: A pattern that ends in names of modules, such as ``model.layers.[\\d]+.(mlp|self_attn).(up|down)_proj``.
_NAMED_AT_END = re.compile(r".*\\?\.\((?P<names>\w+(?:\|\w+)*)\)(?P<rest>_\w+)?\$?", re.DOTALL)
_PATTERN = re.compile(r"[\\\[\](){}^$*+?|]")
_LORA_PATH = "tuning.lora."
_RANK = ("lora_r", "lora_rank", "r", "rank")
_TARGETS = ("lora_target_modules", "lora_target", "target_modules")
#: Ways to begin -> ours.
_INITS = {
    "true": "default",
    "default": "default",
    "gaussian": "gaussian",
    "orthogonal": "orthogonal",
    "pissa": "pissa",
    "olora": "olora",
    "loftq": "loftq",
}
_ADAPTER_SETTINGS = (
    *_RANK,
    *_TARGETS,
    "lora_alpha",
    "lora_dropout",
    "lora_target_linear",
    "use_rslora",
    "peft_use_rslora",
    "use_dora",
    "peft_use_dora",
    "init_lora_weights",
    "peft_init_lora_weights",
    "pissa_init",
    "lora_fan_in_fan_out",
    "lora_modules_to_save",
    "modules_to_save",
    "bias",
)


def carry_adapter(work: Work, method: Method, comment: str = "") -> None:
    """Write the method, and carry what makes up its adapter."""
    work.draft.set("tuning.method", method, comment)
    if method == "full":
        for setting in work.settings:
            if setting.name in _ADAPTER_SETTINGS and not is_off(setting.value):
                work.ledger.same(setting.key, f"{work.tool} trains no adapter either")
        return
    rank = _number(work, _RANK, "r", work.defaults.rank)
    alpha = work.defaults.alpha if work.defaults.alpha is not None else 2 * rank
    _number(work, ("lora_alpha",), "alpha", alpha)
    if dropout := work.number("lora_dropout"):
        work.draft.set(f"{_LORA_PATH}dropout", float(dropout[1]))
        work.ledger.carried(dropout[0].key, f"{_LORA_PATH}dropout")
    elif work.defaults.dropout:
        work.draft.set(f"{_LORA_PATH}dropout", work.defaults.dropout, f"{work.tool}'s default.")
    _carry_targets(work)
    for name, ours in (("use_rslora", "rslora"), ("use_dora", "dora")):
        found = work.find(f"peft_{name}", name)
        if found and not is_off(found.value):
            work.draft.set(f"{_LORA_PATH}{ours}", True)
            work.ledger.carried(found.key, f"{_LORA_PATH}{ours}")
        elif found:
            work.ledger.same(found.key, "off here as well")
    _carry_init(work, method)


def _number(work: Work, names: Sequence[str], ours: str, default: int) -> int:
    path = f"{_LORA_PATH}{ours}"
    if found := work.number(*names):
        work.draft.set(path, int(found[1]))
        work.ledger.carried(found[0].key, path)
        return int(found[1])
    work.draft.set(path, default, f"{work.tool}'s default.")
    return default


def _carry_targets(work: Work) -> None:
    path = f"{_LORA_PATH}targets"
    everything, named = work.find("lora_target_linear"), work.find(*_TARGETS)
    if everything and not is_off(everything.value):
        work.draft.set(path, "all-linear")
        work.ledger.carried(everything.key, path)
        if named:
            work.ledger.carried(named.key, path, "all linear layers are more than those")
        return
    if everything:
        work.ledger.same(everything.key, "the modules are named")
    if named is None:
        work.draft.set(path, _plain(work.defaults.targets), f"{work.tool}'s default.")
        return
    modules = _modules(named.value)
    if modules is None and isinstance(named.value, str) and (match := _NAMED_AT_END.fullmatch(named.value)):
        names = [f"{name}{match['rest'] or ''}" for name in match["names"].split("|")]
        work.draft.set(path, names, f"The modules that {shown(named.value)} ends in.")
        work.ledger.carried(named.key, path, "by their names, in all layers of the text part")
        return
    if modules is None:
        work.draft.set(path, "all-linear", f"In place of the pattern {shown(named.value)}.")
        text = "targets are module names here, not a pattern; all-linear is written"
        work.ledger.lost(named.key, text, "list the modules that the pattern means in tuning.lora.targets")
        return
    work.draft.set(path, modules)
    work.ledger.carried(named.key, path)


def _modules(value: Any) -> list[str] | str | None:
    """Names of modules, ``all-linear``, or ``None`` for what is no list of names."""
    if isinstance(value, str):
        if value.strip().lower() in ("all", "all-linear", "all_linear"):
            return "all-linear"
        if _PATTERN.search(value):
            return None
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        return None
    if value in (["all"], ["all-linear"]):
        return "all-linear"
    return None if any(_PATTERN.search(name) for name in value) else list(dict.fromkeys(value))


def _plain(targets: tuple[str, ...] | str) -> list[str] | str:
    return targets if isinstance(targets, str) else list(targets)


def _carry_init(work: Work, method: Method) -> None:
    path = f"{_LORA_PATH}init"
    if (pissa := work.find("pissa_init")) and not is_off(pissa.value):
        _write_init(work, pissa, "pissa", method)
    setting = work.find("peft_init_lora_weights", "init_lora_weights")
    if setting is None:
        return
    name = str(setting.value).lower()
    if (ours := _INITS.get(name)) or name.startswith("pissa"):
        _write_init(work, setting, ours or "pissa", method)
    else:
        text = (
            f"there is no initialization {shown(setting.value)}; the default is random and starts as "
            "no change"
        )
        work.ledger.lost(setting.key, text, f"choose one in {path}, or leave it")


def _write_init(work: Work, setting: Setting, ours: str, method: Method) -> None:
    path, wanted = f"{_LORA_PATH}init", {"pissa": "lora", "olora": "lora", "loftq": "qlora"}.get(ours)
    if wanted not in (None, method):
        text = f"init {ours} needs method {wanted} here, and the method is {method}; the default is used"
        work.ledger.lost(setting.key, text, f"set tuning.method: {wanted} and {path}: {ours}, or leave it")
        return
    work.draft.set(path, ours)
    work.ledger.carried(setting.key, path)


def settle_bits(work: Work, names: Sequence[str], reason: str) -> None:
    """Settle settings that the method stands for."""
    for setting in work.settings:
        if setting.name in names and work.ledger.is_open(setting.key):
            if is_off(setting.value):
                work.ledger.same(setting.key, reason)
            else:
                work.ledger.carried(setting.key, "tuning.method")
