"""Settings that tunebuild has no key for: whether it does the same anyway, or what follows.

The topics are those of :mod:`tunebuild.spec.foreign`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tunebuild.importers.work import Setting, Work, as_number, is_off, shown
from tunebuild.spec.foreign import Meaning

_ADAM = "adamw"
#: Values that transformers' AdamW has by default.
_BETAS = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "adam_eps": 1e-8}
_ORDERS = ("disable_shuffling", "curriculum_sampling", "sample_packing_sequentially")
_FUSING = ("liger", "cutcrossentropy", "cut_cross_entropy", "kernels")
_FULL = "set tuning.method: full to train all weights, or name more modules in tuning.lora.targets"


def settle_topic(work: Work, setting: Setting, meaning: Meaning) -> None:
    """Settle a setting by the topic that it belongs to."""
    judge = _JUDGES.get(meaning.topic)
    if judge:
        judge(work, setting, meaning)
    else:
        work.ledger.same(setting.key, meaning.hint.removeprefix("not a setting: "))


def _off_or_lost(consequence: str, todo: str) -> Callable[[Work, Setting, Meaning], None]:
    def judge(work: Work, setting: Setting, meaning: Meaning) -> None:
        if is_off(setting.value):
            work.ledger.same(setting.key, "off here as well")
        else:
            work.ledger.lost(setting.key, consequence, todo)

    return judge


def _precision(work: Work, setting: Setting, meaning: Meaning) -> None:
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


def _bits(work: Work, setting: Setting, meaning: Meaning) -> None:
    if is_off(setting.value) and setting.name != "bnb_4bit_use_double_quant":
        work.ledger.same(setting.key, "off here as well, unless tuning.method is qlora")
    else:
        text = "qlora holds the base in NF4 with double quantization, whatever this says"
        work.ledger.same(setting.key, text)


def _optimizer(work: Work, setting: Setting, meaning: Meaning) -> None:
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


def _kernels(work: Work, setting: Setting, meaning: Meaning) -> None:
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


def _supervision(work: Work, setting: Setting, meaning: Meaning) -> None:
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


def _evaluations(work: Work, setting: Setting, meaning: Meaning) -> None:
    held_out = work.draft.get("data.eval.fraction") or work.draft.get("data.eval.files")
    name, number = setting.name, as_number(setting.value)
    if not held_out:
        work.ledger.same(setting.key, "no rows are held out")
    elif name == "evals_per_epoch" and number:
        epochs = work.draft.get("tuning.epochs") or 1
        count = min(1000, max(1, round(number * epochs)))
        work.draft.set("tuning.evaluations", count, f"{number:g} an epoch.")
        work.ledger.carried(setting.key, "tuning.evaluations", "in all, not an epoch")
    elif name in ("eval_strategy", "evaluation_strategy") and setting.value == "epoch":
        count = min(1000, max(1, round(work.draft.get("tuning.epochs") or 1)))
        work.draft.set("tuning.evaluations", count, "One an epoch.")
        work.ledger.carried(setting.key, "tuning.evaluations", "in all, not an epoch")
    elif name in ("eval_steps", "eval_strategy", "evaluation_strategy") and not is_off(setting.value):
        text = "held-out rows are evaluated 4 times during the training, at equal distances"
        work.ledger.lost(setting.key, text, "set tuning.evaluations to the number of times wanted, if not 4")
    else:
        work.ledger.same(setting.key, "held-out rows are evaluated in batches that the memory plan decides")


def _best(work: Work, setting: Setting, meaning: Meaning) -> None:
    held_out = work.draft.get("data.eval.fraction") or work.draft.get("data.eval.files")
    if is_off(setting.value):
        work.ledger.same(setting.key, "the last adapter is kept")
    elif setting.name == "load_best_model_at_end" and held_out:
        work.draft.set("tuning.keep", "best")
        work.ledger.carried(setting.key, "tuning.keep")
    elif setting.name == "metric_for_best_model" and setting.value not in ("loss", "eval_loss"):
        text = "best is the smallest loss on held-out rows"
        work.ledger.lost(setting.key, text, "put a limit on the metric in gates, where there is one")
    elif not held_out and setting.name == "load_best_model_at_end":
        text = "no rows are held out, so no adapter is the best; the last one is kept"
        work.ledger.lost(setting.key, text, "set data.eval.fraction and tuning.keep: best")
    else:
        work.ledger.same(setting.key, "best is the smallest loss on held-out rows")


def _preparation(work: Work, setting: Setting, meaning: Meaning) -> None:
    name = setting.name
    unshuffled = name.startswith("shuffle") and setting.value is False
    if unshuffled or (name in _ORDERS and not is_off(setting.value)):
        text = "rows are trained on in an order that tuning.seed shuffles"
        work.ledger.lost(setting.key, text, "nothing, unless the order of the rows teaches something")
    elif name == "push_dataset_to_hub" and not is_off(setting.value):
        work.ledger.lost(setting.key, "prepared rows stay in the store", "nothing")
    else:
        work.ledger.same(setting.key, "rows are tokenized once, on all cores, and kept in the store")


def _tracking(work: Work, setting: Setting, meaning: Meaning) -> None:
    if is_off(setting.value):
        work.ledger.same(setting.key, "off here as well")
    elif setting.name.startswith(("wandb", "mlflow")):
        tool = "wandb" if setting.name.startswith("wandb") else "mlflow"
        there = list(work.draft.get("tuning.report_to") or [])
        if tool not in there and setting.name in ("wandb_project", "mlflow_tracking_uri"):
            work.draft.set("tuning.report_to", [*there, tool])
        text = f"names and addresses are no part of a spec: {tool} reads them from its environment variables"
        if any(part in setting.name for part in ("key", "token")):
            work.ledger.lost(setting.key, text, f"set {setting.name.upper()} where the build runs")
            return
        variable = {"wandb_name": "WANDB_NAME", "mlflow_tracking_uri": "MLFLOW_TRACKING_URI"}
        shown_as = variable.get(setting.name, setting.name.upper())
        work.ledger.lost(setting.key, text, f"set {shown_as}={shown(setting.value)} where the build runs")
    else:
        text = "metrics go to tensorboard, wandb or mlflow, and to the report"
        work.ledger.lost(setting.key, text, "choose one in tuning.report_to, if wanted")


def _tokens(work: Work, setting: Setting, meaning: Meaning) -> None:
    value = setting.value
    added = setting.name in (
        "tokens",
        "added_tokens",
        "additional_special_tokens",
        "add_tokens",
        "new_special_tokens",
        "add_special_tokens",
    )
    if added and not is_off(value):
        names = value.split(",") if isinstance(value, str) else value
        if isinstance(names, list) and names and all(isinstance(n, str) for n in names):
            text = "a tokenizer gets new tokens only for a template that writes them, and they are trained"
            work.ledger.lost(
                setting.key, text, f"set prompt.new_tokens: {shown(names)} if the base lacks them"
            )
            return
    reasons = {
        "eos_token": "answers end with the end token that the template writes",
        "eot_tokens": "answers end with the end token that the template writes",
        "pad_token": "padding is masked, whatever token it is",
    }
    if setting.name in ("special_tokens", "tokens") and isinstance(value, Mapping):
        for part in value:
            reason = reasons.get(str(part), "the tokenizer is the base's")
            work.ledger.same(f"{setting.key}.{part}", reason)
    work.ledger.same(setting.key, reasons.get(setting.name, "the tokenizer is the base's"))


def _output(work: Work, setting: Setting, meaning: Meaning) -> None:
    if setting.name in ("push_to_hub", "hub_model_id", "export_hub_model_id") and not is_off(setting.value):
        text = "a build ends in an image, and 'tunebuild push' sends it to a container registry"
        work.ledger.lost(
            setting.key, text, "set image.repository, and outputs: [image, adapter] for the adapter"
        )
    else:
        work.ledger.same(setting.key, "what is built is kept in the store and in dist/")


def _merge(work: Work, setting: Setting, meaning: Meaning) -> None:
    work.ledger.same(setting.key, "every adapter is merged; merge.strategy: none leaves it beside the base")


def _checkpoints(work: Work, setting: Setting, meaning: Meaning) -> None:
    work.ledger.same(setting.key, "checkpoints are written at each epoch or evaluation, to resume from")


def _started(work: Work, setting: Setting, meaning: Meaning) -> None:
    text = "training begins with a new adapter, not with the one that is named"
    work.ledger.lost(setting.key, text, "merge that adapter into its base, and name the result as model.base")


def _modules(work: Work, setting: Setting, meaning: Meaning) -> None:
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
        text = "beside an adapter's modules nothing is trained, and none of them apart from the others"
        work.ledger.lost(setting.key, text, _FULL)


def _bias(work: Work, setting: Setting, meaning: Meaning) -> None:
    if is_off(setting.value):
        work.ledger.same(setting.key, "adapters train no biases")
    else:
        work.ledger.lost(setting.key, "adapters train no biases", "set tuning.method: full to train them")


def _parallel(work: Work, setting: Setting, meaning: Meaning) -> None:
    if is_off(setting.value) or as_number(setting.value) == 1:
        work.ledger.same(setting.key, "one process holds the model, unless tuning.processes says otherwise")
    else:
        text = "how the work is shared is not carried, and the spec is for one GPU"
        todo = "set tuning.processes, and tuning.shard: true if the model is too large for one GPU"
        work.ledger.lost(setting.key, text, todo)


def _remote(work: Work, setting: Setting, meaning: Meaning) -> None:
    text = "code that comes with a model is never run: transformers' own models need none, others are refused"
    work.ledger.same(setting.key, text)


def _preferences(work: Work, setting: Setting, meaning: Meaning) -> None:
    if is_off(setting.value) or (setting.name == "loss_type" and setting.value == "nll"):
        work.ledger.same(setting.key, "the loss is the cross-entropy of the answers")
    else:
        text = "tunebuild fine-tunes on answers (SFT), and has no such term"
        work.ledger.lost(setting.key, text, "leave it out")


def _logging(work: Work, setting: Setting, meaning: Meaning) -> None:
    if setting.name.startswith("loss_watchdog"):
        text = "a high loss does not end the training"
        work.ledger.lost(setting.key, text, "set gates.eval_loss, which lets no bad model become an image")
    else:
        work.ledger.same(setting.key, "every step is logged")


_LOSS_TODO = "nothing, or compare the held-out loss; the loss has no such term"
_JUDGES: Mapping[str, Callable[[Work, Setting, Meaning], None]] = {
    "precision": _precision,
    "quantization": _bits,
    "optimizer": _optimizer,
    "kernels": _kernels,
    "supervision": _supervision,
    "evaluations": _evaluations,
    "keep-best": _best,
    "checkpoints": _checkpoints,
    "preparation": _preparation,
    "tracking": _tracking,
    "logging": _logging,
    "special-tokens": _tokens,
    "output": _output,
    "merge": _merge,
    "started-adapter": _started,
    "whole-modules": _modules,
    "remote-code": _remote,
    "bias": _bias,
    "media": _off_or_lost(
        "rows are text, and the text part of a multimodal model is tuned; images, video and "
        "audio are not read",
        "import it for its text rows alone, or keep to the other tool",
    ),
    "other-bits": _off_or_lost(
        "weights are trained in 16 or 32 bits, or as an adapter of a base in NF4",
        "see tuning.method; for a quantized result, see exports in docs/exports.md",
    ),
    "parallel": _parallel,
    "loss": _off_or_lost("the loss is the plain cross-entropy of the answers", _LOSS_TODO),
    "preferences": _preferences,
}
