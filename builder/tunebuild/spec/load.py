"""From a file to a validated spec, or to all that is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

from tunebuild.errors import Diagnostic, TunebuildError
from tunebuild.spec._explain import explain
from tunebuild.spec.checks import CHECKS
from tunebuild.spec.overlay import compose
from tunebuild.spec.schema import validation_schema
from tunebuild.spec.spec import Spec
from tunebuild.spec.yaml_loader import Document, parse_dotted


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A valid spec and where it came from.

    Attributes:
        spec: the typed spec.
        file: the spec file; relative paths in the spec start at its directory.
        document: positions of its keys, for errors that come up later in the build.
    """

    spec: Spec
    file: Path
    document: Document

    @property
    def directory(self) -> Path:
        """The directory that relative paths start from."""
        return self.file.resolve().parent

    def place(self, error: TunebuildError) -> TunebuildError:
        """The same error with positions in this spec, where its diagnostics name a path in it."""
        return TunebuildError(
            tuple(d if d.position or not d.path else self._place(d) for d in error.diagnostics),
            error.exit_code,
        )

    def _place(self, diagnostic: Diagnostic) -> Diagnostic:
        return replace(diagnostic, position=self.document.position(parse_dotted(diagnostic.path)))


def load_spec(file: Path, overrides: Sequence[str] = ()) -> LoadedSpec:
    """Read and validate a spec.

    Args:
        file: the spec; what it extends is read, too.
        overrides: ``PATH=VALUE`` texts that win over the files.

    Raises:
        TunebuildError: every problem at once, in order of position.
    """
    document = compose(file, overrides)
    errors = _validator().iter_errors(document.value)
    if problems := [d for error in errors for d in explain(error, document)]:
        raise TunebuildError(_in_order(problems))
    loaded = LoadedSpec(Spec.model_validate(document.value), file, document)
    problems = [
        replace(d, position=document.position(parse_dotted(d.path)))
        for check in CHECKS
        for d in check(loaded.spec, loaded.directory)
    ]
    if problems:
        raise TunebuildError(_in_order(problems))
    return loaded


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(validation_schema())


def _in_order(problems: list[Diagnostic]) -> tuple[Diagnostic, ...]:
    def key(d: Diagnostic) -> tuple[int, int]:
        return (d.position.line, d.position.column) if d.position else (0, 0)

    return tuple(dict.fromkeys(sorted(problems, key=key)))
