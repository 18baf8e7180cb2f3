"""Rules that span fields, or look at the files beside the spec. Each is one small function."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tunebuild import resources
from tunebuild.errors import Diagnostic
from tunebuild.spec.data import DataSource
from tunebuild.spec.folder import Folder
from tunebuild.spec.secret_rules import secrets_stay_outside
from tunebuild.spec.section import Section
from tunebuild.spec.serving_rules import outputs_can_be_made, platform_has_wheels, vllm_serves_it
from tunebuild.spec.source_rules import HUB_ID, SOURCE_RULES, exists_inside
from tunebuild.spec.spec import Spec
from tunebuild.spec.tuning_rules import (
    batch_divides,
    dequantized_needs_qlora,
    full_has_no_adapter,
    init_suits_the_base,
    new_tokens_are_trained,
    peft_says_which,
    processes_have_rows,
    shards_have_processes,
    warmup_is_said_once,
)
from tunebuild.spec.words import suggest

_OCI_NAME = re.compile(
    r"oci://[A-Za-z0-9][\w.-]*(?::\d+)?(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)+"
    r"(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_NEEDS_ROWS = "needs rows that are held out"
_HOLD_OUT = "set data.eval.fraction or data.eval.files"

#: A rule: the spec and its directory in, diagnostics without positions out.
Check = Callable[[Spec, Folder], Iterator[Diagnostic]]


def broken_rules(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """Everything in which a spec breaks a rule.

    Args:
        spec: the spec. Where a field of it cannot be read, as :func:`tunebuild.spec._readable.readable` makes
            it, the rules that concern the field say nothing.
        directory: the spec's directory.
    """
    for check in CHECKS:
        yield from _as_far_as_readable(check(spec, directory))
    yield from _as_far_as_readable(_source_problems(spec, directory))


def _source_problems(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    for path, source in _sources(spec):
        for rule in SOURCE_RULES:
            yield from _as_far_as_readable(rule(source, path, directory))


def _as_far_as_readable(found: Iterator[Diagnostic]) -> Iterator[Diagnostic]:
    try:
        yield from found
    except AttributeError as error:
        if not (isinstance(error.obj, Section) and error.name in type(error.obj).model_fields):
            raise


def _sources(spec: Spec) -> Iterator[tuple[str, DataSource]]:
    for index, source in enumerate(spec.data.train):
        yield f"data.train[{index}]", source
    for index, source in enumerate(spec.data.eval.files):
        yield f"data.eval.files[{index}]", source


def template_exists(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """A template of the author's own is there."""
    if not isinstance(spec.prompt.template, str):
        yield from exists_inside(spec.prompt.template.file, "prompt.template.file", directory)


def base_is_named_well(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """A local base is a model directory; a hub base is an id."""
    model, path = spec.model, "model.base"
    if model.is_oci:
        if not _OCI_NAME.fullmatch(model.base):
            hint = "write oci://registry.example.com/team/name:tag, or @sha256: and a digest"
            yield Diagnostic("bad-model", f"'{model.base}' is not a name in a registry", hint, path)
        for name in ("revision", "token"):
            if getattr(model, name) is not None:
                message = f"a model in a registry has no {name}"
                hint = "the tag or digest is in its name, and the login is that of 'docker login'"
                yield Diagnostic(f"{name}-of-image", message, hint, f"model.{name}")
        return
    if not model.is_local:
        if not HUB_ID.fullmatch(model.base):
            hint = f"for a directory write base: ./{model.base}"
            yield Diagnostic("bad-model", f"'{model.base}' is not a hub id such as org/name", hint, path)
        return
    # A link inside the directory may lead elsewhere: that is how a shared model directory is used.
    if Path(model.base).is_absolute() or not directory.holds(model.base, follow=False):
        yield Diagnostic(
            "outside", f"'{model.base}' is outside the spec's directory", "link it into the directory", path
        )
    elif not (directory / model.base / "config.json").is_file():
        yield Diagnostic("no-model", f"'{model.base}' holds no config.json", "is it made yet?", path)
    if model.revision is not None:
        yield Diagnostic(
            "revision-of-directory", "a directory has no revision", "remove it", "model.revision"
        )


def weights_matter(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """What is held out is measured once a row, so a weight there would do nothing."""
    for index, source in enumerate(spec.data.eval.files):
        if source.weight != 1.0:
            path = f"data.eval.files[{index}].weight"
            message = "rows that are held out have no weight: each is measured once"
            yield Diagnostic("weight-of-held-out", message, "remove it", path)


def early_stopping_has_rows(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """What waits for a better loss on held-out rows has some."""
    if spec.tuning.early_stopping and not spec.data.eval.holds_out:
        yield Diagnostic("early-stopping", _NEEDS_ROWS, _HOLD_OUT, "tuning.early_stopping")


def best_has_rows(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """What is best on held-out rows has some."""
    if spec.tuning.keep == "best" and not spec.data.eval.holds_out:
        yield Diagnostic("keep-best", _NEEDS_ROWS, _HOLD_OUT, "tuning.keep")


def gates_have_rows(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """A limit on what held-out rows show needs held-out rows."""
    limits = ("eval_loss", "eval_perplexity", "eval_accuracy", "exact_match", "token_f1", "rouge_l")
    if not spec.data.eval.holds_out:
        for path in (*_gates(spec, limits), *_export_gates(spec, limits[:3])):
            yield Diagnostic("gate", _NEEDS_ROWS, _HOLD_OUT, path)


def exports_have_weights(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """What is exported is one model, with the adapter in its weights; each export has a folder of its own."""
    names: list[str] = []
    for index, export in enumerate(spec.exports):
        path = f"exports[{index}]"
        if spec.tuning.method == "peft" or spec.merge.strategy == "none":
            message = "an adapter that stays beside the base's weights cannot be exported with them"
            yield Diagnostic("export", message, "merge it, or take the export out", path)
        if export.name in names:
            message = f"there is another {export.name}, whose folder it would share"
            yield Diagnostic("export", message, "take one of them out", path)
        names.append(export.name)


def gates_have_answers(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """A limit on written answers needs answers."""
    limits = ("exact_match", "token_f1", "rouge_l", "regression_kl", "regression_top1")
    if spec.evaluation.samples == 0:
        for path in _gates(spec, limits):
            yield Diagnostic("gate", "needs answers", "raise evaluation.samples", path)


def tasks_exist(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """A task beside the spec is there and inside its directory."""
    for index, name in enumerate(spec.evaluation.tasks):
        path = f"evaluation.tasks[{index}]"
        if name.startswith(("./", "../")):
            if not ((directory / name).is_dir() and directory.holds(name)):
                yield from exists_inside(name, path, directory)
        elif name.endswith(".yaml") or "/" in name:
            yield Diagnostic("bad-task", f"'{name}' is no name of a task", f"did you mean ./{name}?", path)


def task_gates_can_hold(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """A limit on a task's figure is on a task that is done, has an end, and some figure passes."""
    names = spec.evaluation.tasks
    for task, limits in spec.gates.tasks.items():
        path = f"gates.tasks.{task}"
        # What tasks beside the spec are called stands in their files, which are read by a plan.
        if task not in names and not any(name.startswith(("./", "../")) for name in names):
            hint = f"there are: {', '.join(names) or 'none'}"
            yield Diagnostic("gate", f"no task '{task}' is in evaluation.tasks", hint, path)
        for metric, limit in limits.items():
            if limit.min is None and limit.max is None:
                yield Diagnostic("gate", "says nothing", "min or max", f"{path}.{metric}")
            elif limit.min is not None and limit.max is not None and limit.min > limit.max:
                message = f"nothing is at least {limit.min:g} and at most {limit.max:g}"
                yield Diagnostic("gate", message, "", f"{path}.{metric}.min")


def _gates(spec: Spec, names: Sequence[str]) -> Iterator[str]:
    """Paths of the gates that are set, of these."""
    return (f"gates.{name}" for name in names if getattr(spec.gates, name, None) is not None)


def _export_gates(spec: Spec, names: Sequence[str]) -> Iterator[str]:
    """Paths of the gates of exports that are set, of these."""
    for index, export in enumerate(spec.exports):
        for name in names:
            if getattr(export.gates, name, None) is not None:
                yield f"exports[{index}].gates.{name}"


def template_is_known(spec: Spec, directory: Folder) -> Iterator[Diagnostic]:
    """A template that is named by a word is one that ships with tunebuild."""
    name = spec.prompt.template
    known = ("base", *resources.shipped_templates())
    if isinstance(name, str) and name not in known:
        file = name.endswith((".jinja", ".jinja2", ".j2")) or "/" in name or (directory / name).is_file()
        hint = f"did you mean {{file: {name}}}?" if file else suggest(name, known)
        hint = hint or f"one of: {', '.join(known)}"
        yield Diagnostic("unknown-template", f"there is no template '{name}'", hint, "prompt.template")


CHECKS: tuple[Check, ...] = (
    template_exists,
    base_is_named_well,
    weights_matter,
    batch_divides,
    warmup_is_said_once,
    processes_have_rows,
    shards_have_processes,
    early_stopping_has_rows,
    best_has_rows,
    full_has_no_adapter,
    peft_says_which,
    dequantized_needs_qlora,
    init_suits_the_base,
    new_tokens_are_trained,
    gates_have_rows,
    exports_have_weights,
    gates_have_answers,
    tasks_exist,
    task_gates_can_hold,
    template_is_known,
    secrets_stay_outside,
    vllm_serves_it,
    platform_has_wheels,
    outputs_can_be_made,
)
