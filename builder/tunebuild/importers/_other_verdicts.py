"""Settings around the training that tunebuild decides: rows, evaluations, checkpoints, results."""

from __future__ import annotations

from collections.abc import Mapping

from tunebuild.importers.work import Setting, Work, as_number, is_off, shown
from tunebuild.spec.foreign import Meaning

_ORDERS = ("disable_shuffling", "curriculum_sampling", "sample_packing_sequentially")


def preparation(work: Work, setting: Setting, meaning: Meaning) -> None:
    """How rows are prepared and ordered."""
    name = setting.name
    unshuffled = name.startswith("shuffle") and setting.value is False
    if unshuffled or (name in _ORDERS and not is_off(setting.value)):
        text = "rows are trained on in an order that tuning.seed shuffles"
        work.ledger.lost(setting.key, text, "nothing, unless the order of the rows teaches something")
    elif name == "push_dataset_to_hub" and not is_off(setting.value):
        work.ledger.lost(setting.key, "prepared rows stay in the store", "nothing")
    else:
        work.ledger.same(setting.key, "rows are tokenized once, on all cores, and kept in the store")


def evaluations(work: Work, setting: Setting, meaning: Meaning) -> None:
    """When held-out rows are evaluated."""
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


def best(work: Work, setting: Setting, meaning: Meaning) -> None:
    """Which adapter is kept."""
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


def checkpoints(work: Work, setting: Setting, meaning: Meaning) -> None:
    """When checkpoints are written."""
    work.ledger.same(setting.key, "checkpoints are written at each epoch or evaluation, to resume from")


def logging(work: Work, setting: Setting, meaning: Meaning) -> None:
    """What is logged."""
    if setting.name.startswith("loss_watchdog"):
        text = "a high loss does not end the training"
        work.ledger.lost(setting.key, text, "set gates.eval_loss, which lets no bad model become an image")
    else:
        work.ledger.same(setting.key, "every step is logged")


def tracking(work: Work, setting: Setting, meaning: Meaning) -> None:
    """Where metrics go."""
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


def tokens(work: Work, setting: Setting, meaning: Meaning) -> None:
    """Special tokens."""
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


def output(work: Work, setting: Setting, meaning: Meaning) -> None:
    """Where results go."""
    if setting.name in ("push_to_hub", "hub_model_id", "export_hub_model_id") and not is_off(setting.value):
        text = "a build ends in an image, and 'tunebuild push' sends it to a container registry"
        work.ledger.lost(
            setting.key, text, "set image.repository, and outputs: [image, adapter] for the adapter"
        )
    else:
        work.ledger.same(setting.key, "what is built is kept in the store and in dist/")


def merge(work: Work, setting: Setting, meaning: Meaning) -> None:
    """How an adapter becomes weights."""
    work.ledger.same(setting.key, "every adapter is merged; merge.strategy: none leaves it beside the base")


def started(work: Work, setting: Setting, meaning: Meaning) -> None:
    """An adapter to begin with."""
    text = "training begins with a new adapter, not with the one that is named"
    work.ledger.lost(setting.key, text, "merge that adapter into its base, and name the result as model.base")


def remote(work: Work, setting: Setting, meaning: Meaning) -> None:
    """Code that comes with a model."""
    text = "code that comes with a model is never run: transformers' own models need none, others are refused"
    work.ledger.same(setting.key, text)
