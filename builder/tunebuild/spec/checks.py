"""Rules that span fields, or look at the files beside the spec. Each is one small function."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tunebuild import resources
from tunebuild.errors import Diagnostic
from tunebuild.spec._words import dotted, suggest
from tunebuild.spec.data import Condition, DataSource
from tunebuild.spec.schema import schema_at
from tunebuild.spec.secret import MARK
from tunebuild.spec.spec import Spec
from tunebuild.spec.tuning import LoraSpec
from tunebuild.spec.yaml_loader import NodePath

# The columns of the formats.
_COLUMNS = {
    "qa": ("question", "answer"),
    "alpaca": ("instruction", "input", "output"),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
}

_HOLD_OUT = "set data.eval.fraction or data.eval.files"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

# The forms of Hugging Face, OpenAI-like, AWS, GitHub and GitLab tokens, and of private keys.
_TOKEN = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{20,}|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}"
    r"|\bglpat-[A-Za-z0-9_-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)

#: A rule: the spec and its directory in, diagnostics without positions out.
Check = Callable[[Spec, Path], Iterator[Diagnostic]]


def _sources(spec: Spec) -> Iterator[tuple[str, DataSource]]:
    for index, source in enumerate(spec.data.train):
        yield f"data.train[{index}]", source
    for index, source in enumerate(spec.data.eval.files):
        yield f"data.eval.files[{index}]", source


def _named_files(spec: Spec, directory: Path) -> Iterator[tuple[str, str]]:
    for path, source in _sources(spec):
        if source.hub is None:
            for name in source.files(directory) or ([source.path] if source.path else []):
                yield f"{path}.path", name
    if not isinstance(spec.prompt.template, str):
        yield "prompt.template.file", spec.prompt.template.file


def files_exist_inside(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """Every named file is there, and inside the spec's directory so that the repository is complete."""
    for path, name in _named_files(spec, directory):
        file = directory / name
        if not file.resolve().is_relative_to(directory.resolve()):
            yield Diagnostic(
                "outside", f"'{name}' is outside the spec's directory", "copy it beside the spec", path
            )
        elif not file.is_file():
            yield Diagnostic("no-file", f"there is no file '{name}'", f"looked for {file}", path)


def base_is_named_well(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """A local base is a model directory; a hub base is an id."""
    model, path = spec.model, "model.base"
    if not model.is_local:
        if not _HUB_ID.fullmatch(model.base):
            hint = f"for a directory write base: ./{model.base}"
            yield Diagnostic("bad-model", f"'{model.base}' is not a hub id such as org/name", hint, path)
        return
    # A link inside the directory may lead elsewhere: that is how a shared model directory is used.
    if Path(model.base).is_absolute() or ".." in Path(model.base).parts:
        yield Diagnostic(
            "outside", f"'{model.base}' is outside the spec's directory", "link it into the directory", path
        )
    elif not (directory / model.base / "config.json").is_file():
        yield Diagnostic("no-model", f"'{model.base}' holds no config.json", "is it made yet?", path)
    if model.revision is not None:
        yield Diagnostic(
            "revision-of-directory", "a directory has no revision", "remove it", "model.revision"
        )


def hub_data_is_named_well(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """Rows come from a repository with an id, and only such rows have a revision and a token."""
    for path, source in _sources(spec):
        if source.hub is not None and not _HUB_ID.fullmatch(source.hub):
            yield Diagnostic("bad-hub", f"'{source.hub}' is not a hub id such as org/name", "", f"{path}.hub")
        if source.path is None and source.split is None:
            message = "names no rows" if source.hub is None else "names neither a file nor a split"
            yield Diagnostic("no-path", message, "give it a path, or a hub and a split", path)
        if source.path is not None and source.split is not None:
            message = "names a file and a split: only one of them can be meant"
            yield Diagnostic("path-and-split", message, "remove one", f"{path}.split")
        if source.config is not None and source.split is None:
            message = "only a split has a configuration"
            yield Diagnostic("config-alone", message, "name the split", f"{path}.config")
        for name in ("revision", "token", "split", "config"):
            if source.hub is None and getattr(source, name) is not None:
                message = f"a file beside the spec has no {name}"
                yield Diagnostic("not-hub", message, "remove it, or name its hub", f"{path}.{name}")


def conditions_can_hold(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """A condition says something, is a regular expression where it should be one, and some value meets it."""
    for path, source in _sources(spec):
        for column, wanted in source.where.items():
            here = f"{path}.where.{column}"
            if not isinstance(wanted, Condition):
                continue
            if not wanted.model_fields_set:
                yield Diagnostic("condition", "says nothing", "in, not, min, max or matches", here)
            if wanted.min is not None and wanted.max is not None and wanted.min > wanted.max:
                message = f"nothing is at least {wanted.min:g} and at most {wanted.max:g}"
                yield Diagnostic("condition", message, "", f"{here}.min")
            try:
                re.compile(wanted.matches or "")
            except (re.error, RecursionError, OverflowError) as error:
                message = f"is no regular expression: {error}"
                yield Diagnostic("condition", message, "see Python's re module", f"{here}.matches")


def weights_matter(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """What is held out is measured once a row, so a weight there would do nothing."""
    for index, source in enumerate(spec.data.eval.files):
        if source.weight != 1.0:
            path = f"data.eval.files[{index}].weight"
            message = "rows that are held out have no weight: each is measured once"
            yield Diagnostic("weight-of-held-out", message, "remove it", path)


def mapped_columns_belong(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """A format that is named has the columns that are mapped to it."""
    for path, source in _sources(spec):
        known = _COLUMNS.get(source.format, ())
        for name in source.columns:
            if known and name not in known:
                hint = suggest(name, known) or f"it has: {', '.join(known)}"
                message = f"format '{source.format}' has no column '{name}'"
                yield Diagnostic("unknown-column", message, hint, f"{path}.columns.{name}")


def batch_divides(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """Rows per step divide evenly into pieces."""
    tuning = spec.tuning
    if tuning.micro_batch_size and tuning.batch_size % tuning.micro_batch_size:
        yield Diagnostic(
            "batch",
            f"batch_size {tuning.batch_size} is not a multiple of micro_batch_size {tuning.micro_batch_size}",
            "",
            "tuning.micro_batch_size",
        )


def training_can_run(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """Processes have rows to share, and what looks at held-out rows has some."""
    tuning = spec.tuning
    if tuning.processes > tuning.batch_size:
        message = f"{tuning.processes} processes cannot share a step of {tuning.batch_size} rows"
        yield Diagnostic("processes", message, "raise tuning.batch_size", "tuning.processes")
    if tuning.early_stopping and not _holds_out(spec):
        message = "needs rows that are held out"
        yield Diagnostic("early-stopping", message, _HOLD_OUT, "tuning.early_stopping")
    if tuning.keep == "best" and not _holds_out(spec):
        yield Diagnostic("keep-best", "needs rows that are held out", _HOLD_OUT, "tuning.keep")


def _holds_out(spec: Spec) -> bool:
    return bool(spec.data.eval.fraction or spec.data.eval.files)


def answers_fit(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """A default answer leaves room for a question."""
    serving = spec.serving
    if serving.defaults.max_tokens >= serving.limits.context:
        yield Diagnostic(
            "no-room",
            f"max_tokens {serving.defaults.max_tokens} leaves no room for a prompt in a context of "
            f"{serving.limits.context}",
            "raise serving.limits.context or lower it",
            "serving.defaults.max_tokens",
        )


def full_has_no_adapter(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """Where all weights are trained there is no adapter, and nothing to merge it into."""
    if spec.tuning.method != "full":
        return
    if spec.tuning.lora != LoraSpec():
        yield Diagnostic("no-adapter", "method full trains no adapter", "remove it", "tuning.lora")
    if spec.merge.strategy == "original":
        message = "method full has no adapter to merge"
        yield Diagnostic("strategy", message, "leave it at auto", "merge.strategy")


def dequantized_needs_qlora(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """Only a quantised base can be dequantised."""
    if spec.merge.strategy == "dequantized" and spec.tuning.method not in ("qlora", "auto"):
        yield Diagnostic(
            "strategy",
            f"'dequantized' needs tuning.method qlora, not {spec.tuning.method}",
            "use merge.strategy: auto",
            "merge.strategy",
        )


def init_suits_the_base(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """First values that come from the base's weights need them as they are, and a merge that knows them."""
    init, path = spec.tuning.lora.init, "tuning.lora.init"
    if init in ("default", "gaussian", "orthogonal"):
        return
    wanted = "qlora" if init == "loftq" else "lora"
    if spec.tuning.method not in (wanted, "auto"):
        message = f"'{init}' needs tuning.method {wanted}, not {spec.tuning.method}"
        yield Diagnostic("init", message, "use another init", path)
    if spec.tuning.lora.dora:
        yield Diagnostic("init", f"'{init}' does not go with dora", "use one of them", path)
    if init == "loftq" and spec.merge.strategy not in ("auto", "dequantized"):
        message = f"'{spec.merge.strategy}' is wrong for loftq: its adapter belongs to the quantised base"
        yield Diagnostic("strategy", message, "use merge.strategy: auto", "merge.strategy")


def gates_have_rows(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """A limit on what held-out rows show needs held-out rows."""
    if _holds_out(spec):
        return
    for name in ("eval_loss", "eval_perplexity", "eval_accuracy", "exact_match", "token_f1", "rouge_l"):
        if getattr(spec.gates, name) is not None:
            message = "needs rows that are held out"
            yield Diagnostic("gate", message, _HOLD_OUT, f"gates.{name}")


def gates_have_answers(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """A limit on written answers needs answers."""
    for name in ("exact_match", "token_f1", "rouge_l", "regression_kl", "regression_top1"):
        if spec.evaluation.samples == 0 and getattr(spec.gates, name) is not None:
            yield Diagnostic("gate", "needs answers", "raise evaluation.samples", f"gates.{name}")


def template_is_known(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """A template that is named by a word is one that ships with tunebuild."""
    name = spec.prompt.template
    known = ("base", *resources.shipped_templates())
    if isinstance(name, str) and name not in known:
        hint = suggest(name, known) or f"one of: {', '.join(known)}"
        yield Diagnostic("unknown-template", f"there is no template '{name}'", hint, "prompt.template")


def secrets_stay_outside(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """References to variables stand only where a secret is expected, and secrets stand nowhere."""
    for path, text in _texts(spec.model_dump(mode="json", by_alias=True), ()):
        if any(schema.get("writeOnly") for schema in schema_at(path)):
            continue
        if MARK in text:
            message = "takes no ${env:...}: a build may not depend on where it runs"
            yield Diagnostic("env", message, "write the value, or use --set", dotted(path))
        elif _TOKEN.search(text):
            message = "looks like an access token"  # without the text, which would end up in logs
            hint = (
                "take it out and revoke it; a spec names secrets as ${env:NAME}, for example in model.token"
            )
            yield Diagnostic("secret", message, hint, dotted(path))


def _texts(value: Any, path: NodePath) -> Iterator[tuple[NodePath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, index))


CHECKS: tuple[Check, ...] = (
    files_exist_inside,
    base_is_named_well,
    hub_data_is_named_well,
    conditions_can_hold,
    weights_matter,
    mapped_columns_belong,
    batch_divides,
    training_can_run,
    answers_fit,
    full_has_no_adapter,
    dequantized_needs_qlora,
    init_suits_the_base,
    gates_have_rows,
    gates_have_answers,
    template_is_known,
    secrets_stay_outside,
)
