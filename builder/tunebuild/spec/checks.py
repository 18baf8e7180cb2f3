"""Rules that span fields, or look at the files beside the spec. Each is one small function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tunebuild.errors import Diagnostic
from tunebuild.spec.spec import Spec

#: A rule: the spec and its directory in, diagnostics without positions out.
Check = Callable[[Spec, Path], Iterator[Diagnostic]]


def _named_files(spec: Spec) -> Iterator[tuple[str, str]]:
    for index, source in enumerate(spec.data.train):
        yield f"data.train[{index}].path", source.path
    for index, source in enumerate(spec.data.eval.files):
        yield f"data.eval.files[{index}].path", source.path
    if not isinstance(spec.prompt.template, str):
        yield "prompt.template.file", spec.prompt.template.file


def files_exist_inside(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """Every named file is there, and inside the spec's directory so that the repository is complete."""
    for path, name in _named_files(spec):
        file = directory / name
        if not file.resolve().is_relative_to(directory.resolve()):
            yield Diagnostic(
                "outside", f"'{name}' is outside the spec's directory", "copy it beside the spec", path
            )
        elif not file.is_file():
            yield Diagnostic("no-file", f"there is no file '{name}'", f"looked for {file}", path)


def base_is_named_well(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """A local base is a model directory; a hub base is pinned to a commit."""
    model, path = spec.model, "model.base"
    if not model.is_local:
        if model.revision is None:
            yield Diagnostic(
                "no-revision",
                "a hub model needs the commit it is taken from",
                "add model.revision with the repository's 40-digit commit; for a directory write "
                f"base: ./{model.base}",
                path,
            )
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


def batch_divides(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """Rows per step divide evenly into pieces."""
    tuning = spec.tuning
    if tuning.batch_size % tuning.gradient_accumulation:
        yield Diagnostic(
            "batch",
            f"batch_size {tuning.batch_size} is not a multiple of gradient_accumulation "
            f"{tuning.gradient_accumulation}",
            "",
            "tuning.gradient_accumulation",
        )


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


def dequantized_needs_qlora(spec: Spec, directory: Path) -> Iterator[Diagnostic]:
    """Only a quantised base can be dequantised."""
    if spec.merge.strategy == "dequantized" and spec.tuning.method != "qlora":
        yield Diagnostic(
            "strategy",
            f"'dequantized' needs tuning.method qlora, not {spec.tuning.method}",
            "use merge.strategy: original",
            "merge.strategy",
        )


CHECKS: tuple[Check, ...] = (
    files_exist_inside,
    base_is_named_well,
    batch_divides,
    answers_fit,
    dequantized_needs_qlora,
)
