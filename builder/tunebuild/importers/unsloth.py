"""Scripts and notebooks that train with Unsloth: the arguments of the calls that set it up.

Names and defaults as in its ``models/loader.py``, ``models/llama.py`` and ``models/rl.py`` (2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.importers._script import Call, Script, read_script
from tunebuild.importers._unsloth_rows import ALPACA, carry_prompt, carry_rows, carry_trainer
from tunebuild.importers.base import carry_base
from tunebuild.importers.ledger import Unresolved
from tunebuild.importers.method import Method, carry_adapter, settle_bits
from tunebuild.importers.refuse import other_objective
from tunebuild.importers.result import Notice
from tunebuild.importers.work import Defaults, Setting, Work, is_off

_MODELS = ("FastLanguageModel", "FastModel", "FastVisionModel", "FastQwen2Model", "FastLlamaModel")
_CONFIGS = ("SFTConfig", "UnslothTrainingArguments", "TrainingArguments")
_TRAINERS = ("SFTTrainer", "UnslothTrainer", "Trainer")
#: Names of arguments that may be given by their place.
_PLACES = {
    "from_pretrained": ("model_name", "max_seq_length", "dtype", "load_in_4bit"),
    "get_peft_model": ("model", "r", "target_modules", "lora_alpha", "lora_dropout", "bias"),
    "get_chat_template": ("tokenizer", "chat_template", "mapping", "map_eos_token"),
    "train_on_responses_only": ("trainer", "instruction_part", "response_part"),
    "load_dataset": ("path", "name", "data_dir", "data_files", "split"),
    "train_test_split": ("test_size", "train_size"),
    **dict.fromkeys(_CONFIGS, ("output_dir",)),
    **dict.fromkeys(_TRAINERS, ("model", "args")),
}
#: Calls of which every one is read; of the others it is the first.
_ALL = ("load_dataset",)
_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PLAIN_HINT = (
    "of scripts, only those that use Unsloth are read: write the arguments of this one's SFTConfig and "
    "LoraConfig into YAML, as 'trl sft --config' takes them, and import that"
)
_HINT = (
    "give the script or notebook that calls FastLanguageModel.from_pretrained, get_peft_model and SFTConfig "
    "or TrainingArguments itself"
)


def script_settings(text: str, name: str) -> tuple[Mapping[str, Any], tuple[Notice, ...]]:
    """The arguments of a script's calls, by call and name, and what could not be read.

    Raises:
        TunebuildError: if it is no script, makes none of the calls, or trains on something else.
    """
    script = read_script(text, name)
    value = _by_call(script)
    model = any(call.name.startswith(_MODELS) for call in script.calls)
    trains = any(part in value for part in ("get_peft_model", *_CONFIGS, *_TRAINERS))
    others = _other_objectives(script)
    if others and not any(part in value for part in ("SFTConfig", "SFTTrainer", "UnslothTrainer")):
        raise other_objective("Unsloth", others[0], others[0].removesuffix("Config").removesuffix("Trainer"))
    if not model or not trains:
        missing = (
            "get_peft_model, SFTConfig and TrainingArguments"
            if model
            else "FastLanguageModel.from_pretrained"
        )
        unread = f", and {len(script.unread)} of its cells are not Python" if script.unread else ""
        message = f"{name} does not call {missing}{unread}"
        plain = not model and any(part in value for part in ("SFTConfig", "SFTTrainer"))
        raise fail("import-no-calls", message, _PLAIN_HINT if plain else _HINT)
    notices = []
    if others:
        text = f"{others[0]} is a training of its own, which no spec has: only the SFT before it is carried"
        notices.append(Notice(text, attention=True))
    if script.unread:
        cells = ", ".join(map(str, script.unread))
        notices.append(Notice(f"code cells that are not Python were not read: {cells}", attention=True))
    return value, (*notices, *_repeated(script), *_assigned(script))


def _by_call(script: Script) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for call in script.calls:
        if call.name.lower().endswith("alpaca_prompt.format"):
            found.setdefault(ALPACA, {"format": call.name})
        if not _is_read(call):
            continue
        arguments = _arguments(call)
        if call.method in _ALL:
            found.setdefault(call.method, []).append(arguments)
        else:
            found.setdefault(call.method, arguments)
    return found


def _is_read(call: Call) -> bool:
    if call.method in ("from_pretrained", "get_peft_model"):
        return call.name.startswith(_MODELS)
    return call.method in _PLACES


def _arguments(call: Call) -> dict[str, Any]:
    names = _PLACES[call.method]
    placed = {
        names[place] if place < len(names) else f"argument {place + 1}": value
        for place, value in enumerate(call.positional)
    }
    return {**placed, **call.named}


def _other_objectives(script: Script) -> list[str]:
    kinds = ("DPO", "ORPO", "GRPO", "KTO", "PPO", "CPO", "RLOO", "Reward")
    names = [f"{kind}{part}" for part in ("Trainer", "Config") for kind in kinds]
    return [call.method for call in script.calls if call.method in names]


def _repeated(script: Script) -> tuple[Notice, ...]:
    """What was called again with other arguments, which is not read."""
    found, first = [], {}
    for call in script.calls:
        if _is_read(call) and call.method not in _ALL:
            if call.method not in first:
                first[call.method] = _arguments(call)
            elif call.method not in ("from_pretrained", "train_test_split") and first[
                call.method
            ] != _arguments(call):
                text = f"{call.method} is called again with other arguments: only the first call is carried"
                found.append(Notice(text, attention=True))
    return tuple(dict.fromkeys(found))


def _assigned(script: Script) -> tuple[Notice, ...]:
    """Settings that are changed after the call that has them, which is not followed."""
    return tuple(
        Notice(
            f"{written} is set after {method} is called: put its value in the spec yourself", attention=True
        )
        for method, written in dict.fromkeys(script.assigned)
        if method in _CONFIGS or (method in _TRAINERS and ".args." in written)
    )


class Unsloth:
    """Reads scripts and notebooks that use Unsloth."""

    name = "unsloth"
    title = "Unsloth"
    required = frozenset(("from_pretrained",))
    keys = frozenset(("from_pretrained", "get_peft_model"))

    def defaults(self, value: Mapping[str, Any]) -> Defaults:
        """As its functions have them; it patches TRL's and transformers' own."""
        return Defaults(
            rows_at_once=4,
            accumulation=2,
            epochs=3,
            learning_rate=5e-5,
            schedule="linear",
            max_length=2048,
            seed=3407,
            warmup_ratio=0.1,
            weight_decay=0.01,
            rank=16,
            alpha=16,
            targets="all-linear" if _by_parts(value) else _MODULES,
        )

    def settings(self, value: Mapping[str, Any]) -> Sequence[Setting]:
        """The arguments of model, adapter, trainer and configuration, the last of which counts most."""
        found = []
        for call in ("from_pretrained", "get_peft_model", *_TRAINERS, *_CONFIGS):
            inner = value.get(call)
            if isinstance(inner, Mapping):
                found += [Setting(f"{call}.{name}", str(name), one) for name, one in inner.items()]
        return found

    def complete(self, value: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
        """The script is all in one file."""
        return value

    def carry(self, work: Work) -> None:
        """Carry model, rows, template and adapter."""
        model = work.find("model_name")
        carry_base(work, model)
        carry_rows(work)
        carry_trainer(work, _TRAINERS)
        carry_prompt(work)
        method, comment = _method(work)
        settle_bits(work, ("load_in_4bit", "load_in_8bit", "full_finetuning"), "tuning.method says it")
        _carry_parts(work)
        _carry_whole_modules(work, method)
        carry_adapter(work, method, comment)
        work.draft.set("data.on_long", "drop", "Longer rows were cut, answers too; here they are dropped.")


def _by_parts(value: Mapping[str, Any]) -> bool:
    """Whether targets are chosen by part of the model, not by name."""
    inner = value.get("get_peft_model")
    return isinstance(inner, Mapping) and any(str(name).startswith("finetune_") for name in inner)


def _carry_parts(work: Work) -> None:
    """Settle the switches that only Unsloth has."""
    for setting in work.settings:
        name, key, on = setting.name, setting.key, not is_off(setting.value)
        if name in ("finetune_vision_layers", "finetune_audio_layers") and on:
            text = "only the text part of a multimodal model is tuned"
            work.ledger.lost(key, text, "keep to Unsloth, if the other part has to change")
        elif name.startswith("finetune_") and not on and not name.endswith(("vision_layers", "audio_layers")):
            text = "all linear layers of the text part get adapters"
            work.ledger.lost(key, text, "name the modules wanted in tuning.lora.targets")
        elif name.startswith("finetune_"):
            work.ledger.same(key, "all linear layers of the text part get adapters")
        elif name in ("fast_inference", "gpu_memory_utilization", "max_lora_rank"):
            work.ledger.same(key, "nothing is generated while training")
        elif name == "load_in_16bit":
            work.ledger.same(key, "tuning.method says it")
        elif name == "task_type" and str(setting.value).upper().endswith(("CAUSAL_LM", "NONE")):
            work.ledger.same(key, "a model that writes text is tuned")


def _method(work: Work) -> tuple[Method, str]:
    full, eight, four = work.find("full_finetuning"), work.find("load_in_8bit"), work.find("load_in_4bit")
    if full and full.value is True:
        return "full", ""
    if eight and not is_off(eight.value):
        text = "no base is held in 8 bits while training; lora holds it in 16"
        work.ledger.lost(eight.key, text, "set tuning.method: qlora (4 bits) or auto, if it does not fit")
        return "lora", ""
    if four and isinstance(four.value, Unresolved):
        work.refuse_value(four, "tuning.method: qlora or lora")
        return "qlora", "Unsloth's default."
    if four is None:
        return "qlora", "Unsloth's default: load_in_4bit is true."
    return ("lora", "") if is_off(four.value) else ("qlora", "")


def _carry_whole_modules(work: Work, method: Method) -> None:
    """Embedding and head among the targets are trained as a whole there."""
    targets = work.find("target_modules")
    if method == "full" or not targets or not isinstance(targets.value, list):
        return
    whole = [name for name in targets.value if name in ("embed_tokens", "lm_head")]
    if whole:
        text = f"{' and '.join(whole)} are trained as a whole there; here they get adapters like the others"
        work.note(f"tuning.lora.targets: {text}. Or set tuning.method: full", attention=True)
