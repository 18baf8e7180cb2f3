"""Settings of the training itself that tunebuild decides."""

from __future__ import annotations

from tunebuild.importers.work import Setting, Work, as_number, is_off, shown
from tunebuild.spec.foreign import Meaning

_ADAM = "adamw"
#: Values that transformers' AdamW has by default.
_BETAS = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "adam_eps": 1e-8}
_FUSING = ("liger", "cutcrossentropy", "cut_cross_entropy", "kernels")
_FULL = "set tuning.method: full to train all weights, or name more modules in tuning.lora.targets"


def precision(work: Work, setting: Setting, meaning: Meaning) -> None:
    """In which precision products are computed."""
    if setting.name.startswith("fp8") and not is_off(setting.value):
        text = "products are computed in bfloat16 or float32, not in 8 bits: slower, and more exact"
        work.ledger.lost(setting.key, text, "nothing, unless the run does not fit; see tuning.memory")
    elif setting.name in ("fp16", "float16") and setting.value is True:
        text = (
            "there is no float16 training; compute_dtype: auto takes bfloat16, or float32 on older hardware"
        )
        work.ledger.lost(setting.key, text, "nothing; 'tunebuild plan' prints which it is")
    elif setting.name == "float32" and setting.value is True:
        work.draft.set("tuning.compute_dtype", "float32")
        work.ledger.carried(setting.key, "tuning.compute_dtype")
    else:
        work.ledger.same(setting.key, "compute_dtype: auto takes bfloat16 where the hardware has it")


def bits(work: Work, setting: Setting, meaning: Meaning) -> None:
    """In how many bits the base is held."""
    if is_off(setting.value) and setting.name != "bnb_4bit_use_double_quant":
        work.ledger.same(setting.key, "off here as well, unless tuning.method is qlora")
    else:
        text = "qlora holds the base in NF4 with double quantization, whatever this says"
        work.ledger.same(setting.key, text)


def optimizer(work: Work, setting: Setting, meaning: Meaning) -> None:
    """The optimizer and its settings."""
    name, number = setting.name, as_number(setting.value)
    if name in ("optim", "optimizer") and _ADAM in str(setting.value).lower():
        state = " with its state in 32 bits" if any(b in str(setting.value) for b in ("8bit", "4bit")) else ""
        work.ledger.same(setting.key, f"the optimizer is AdamW{state}")
    elif name in _BETAS and number == _BETAS[name]:
        work.ledger.same(setting.key, "AdamW's usual value, here as well")
    elif is_off(setting.value):
        work.ledger.same(setting.key, "off here as well")
    else:
        text = "the optimizer is AdamW with its usual betas and one learning rate, which falls to 0"
        work.ledger.lost(
            setting.key, text, "compare the loss curves; tune tuning.learning_rate if they differ"
        )


def kernels(work: Work, setting: Setting, meaning: Meaning) -> None:
    """Fused layers and plugins."""
    if setting.name != "plugins":
        work.ledger.same(setting.key, "layers are fused and compiled where that pays; the plan says so")
        return
    names = [str(one) for one in (setting.value if isinstance(setting.value, list) else [setting.value])]
    other = [name for name in names if not any(part in name.lower() for part in _FUSING)]
    if other:
        text = f"a plugin may change what is trained, and {other[0]} is not run"
        work.ledger.lost(setting.key, text, "look up what it does; a spec has no plugins")
    else:
        work.ledger.same(setting.key, "losses and layers are fused where that pays; the plan says so")


def supervision(work: Work, setting: Setting, meaning: Meaning) -> None:
    """What of a row is in the loss."""
    name, value = setting.name, setting.value
    answers = {
        "train_on_inputs": value is False,
        "train_on_prompt": value is False,
        "completion_only_loss": value is True,
        "assistant_only_loss": value is True,
        "mask_history": value is False,
        "train_on_responses_only": True,
        "roles_to_train": value
        in (["assistant"], ["gpt"], "assistant", ["assistant", "gpt"], ["gpt", "assistant"]),
        "train_on_eos": value == "turn",
        "train_on_eot": value == "turn",
    }
    if answers.get(name) or name in ("response_template", "instruction_template"):
        work.ledger.same(setting.key, "all answers and their end tokens are in the loss, prompts are not")
        return
    if name == "mask_history":
        todo = "give earlier answers weight: 0 in the rows"
    elif name in ("train_on_eos", "train_on_eot"):
        todo = "nothing, if answers should end by themselves"
    else:
        todo = "nothing, if only answers should be learned; else write rows as text and name format: text"
    text = f"{name} is {shown(value)}; here all answers and their end tokens are in the loss, prompts never"
    work.ledger.lost(setting.key, text, todo)


def modules(work: Work, setting: Setting, meaning: Meaning) -> None:
    """What is trained beside an adapter, or left as it is."""
    if is_off(setting.value) or setting.name == "lora_fan_in_fan_out":
        work.ledger.same(
            setting.key,
            "the layout of the weights is found by itself"
            if setting.name == "lora_fan_in_fan_out"
            else "off here as well",
        )
    elif setting.name.startswith("freeze_") and setting.name.endswith(("tower", "projector", "mm_modules")):
        work.ledger.same(setting.key, "only the text part of a multimodal model is trained")
    else:
        if work.draft.get("tuning.method") == "full":
            text = "all weights are trained, and none is left as it is"
            work.ledger.lost(setting.key, text, "keep it so, or train an adapter: tuning.method: lora")
            return
        text = "beside an adapter's modules nothing is trained, and none of them apart from the others"
        work.ledger.lost(setting.key, text, _FULL)


def bias(work: Work, setting: Setting, meaning: Meaning) -> None:
    """Biases."""
    if is_off(setting.value):
        work.ledger.same(setting.key, "adapters train no biases")
    else:
        work.ledger.lost(setting.key, "adapters train no biases", "set tuning.method: full to train them")


def parallel(work: Work, setting: Setting, meaning: Meaning) -> None:
    """How a step is shared."""
    if is_off(setting.value) or as_number(setting.value) == 1:
        work.ledger.same(setting.key, "one process holds the model, unless tuning.processes says otherwise")
    else:
        text = "how the work is shared is not carried, and the spec is for one GPU"
        todo = "set tuning.processes, and tuning.shard: true if the model is too large for one GPU"
        work.ledger.lost(setting.key, text, todo)


def preferences(work: Work, setting: Setting, meaning: Meaning) -> None:
    """Terms of other objectives."""
    if is_off(setting.value) or (setting.name == "loss_type" and setting.value == "nll"):
        work.ledger.same(setting.key, "the loss is the cross-entropy of the answers")
    else:
        text = "tunebuild fine-tunes on answers (SFT), and has no such term"
        work.ledger.lost(setting.key, text, "leave it out")
