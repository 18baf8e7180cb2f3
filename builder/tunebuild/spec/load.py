"""From a file to a validated spec, or to all that is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from tunebuild.errors import Diagnostic, TunebuildError
from tunebuild.spec._words import dotted
from tunebuild.spec.checks import CHECKS
from tunebuild.spec.overlay import compose
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
    loaded = LoadedSpec(_validated(document), file, document)
    problems = [
        replace(d, position=document.position(parse_dotted(d.path)))
        for check in CHECKS
        for d in check(loaded.spec, loaded.directory)
    ]
    if problems:
        raise TunebuildError(_in_order(problems))
    return loaded


def _validated(document: Document) -> Spec:
    """The typed spec of a document that fits the published schema."""
    try:
        # What the models accept without converting anything, the schema accepts: it is made from them, and
        # a test holds them to it. That spares a valid spec the import of the schema's validator.
        return Spec.model_validate_json(json.dumps(document.value, allow_nan=False), strict=True)
    except (ValidationError, ValueError, RecursionError):
        from tunebuild.spec._explain import violations

        if problems := list(violations(document)):
            raise TunebuildError(_in_order(problems)) from None
    try:
        return Spec.model_validate(document.value)
    except ValidationError as error:  # such as 1e19, which the schema takes for a whole number
        found = [(e["loc"], e["msg"].lower()) for e in error.errors()]
        raise TunebuildError(
            tuple(Diagnostic("invalid", text, "", dotted(p), document.position(p)) for p, text in found)
        ) from None


def _in_order(problems: list[Diagnostic]) -> tuple[Diagnostic, ...]:
    def key(d: Diagnostic) -> tuple[int, int]:
        return (d.position.line, d.position.column) if d.position else (0, 0)

    return tuple(dict.fromkeys(sorted(problems, key=key)))
