"""From a file to a validated spec, or to all that is wrong with it."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from tunebuild.errors import Diagnostic, Position, TunebuildError
from tunebuild.spec.checks import broken_rules
from tunebuild.spec.folder import Folder
from tunebuild.spec.overlay import compose
from tunebuild.spec.spec import Spec
from tunebuild.spec.words import dotted
from tunebuild.spec.yaml_loader import Document, parse_dotted, parse_yaml

_LONGEST_NAME = 120


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

    @property
    def folder(self) -> Folder:
        """That, and the directories of what the spec extends, where it may have files, too."""
        return _folder(self.file, self.document)

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
    try:
        document = compose(file, overrides)
        spec, problems = _read(document)
        if spec is not None:
            problems += [
                replace(d, position=document.position(parse_dotted(d.path)))
                for d in broken_rules(spec, _folder(file, document))
            ]
    except OSError as error:  # such as a name that is too long for the file system
        named = str(error.filename or file)
        shown = named if len(named) <= _LONGEST_NAME else f"{named[:_LONGEST_NAME]}..."
        message = f"cannot look for {shown}: {(error.strerror or str(error)).lower()}"
        hint = "shorten the path" if error.errno == errno.ENAMETOOLONG else ""
        place = Position(str(file), 0, 0)
        raise TunebuildError((Diagnostic("unreadable", message, hint, position=place),)) from None
    if problems or spec is None:
        raise TunebuildError(_in_order(problems))
    return LoadedSpec(spec, file, document)


def problems_of(text: str, file: Path) -> tuple[Diagnostic, ...]:
    """Everything that is wrong with the text of a spec that extends no other.

    Args:
        text: the spec.
        file: where it is going to be; relative paths in it start at its directory.
    """
    try:
        document = parse_yaml(text.encode("utf-8"), str(file))
    except TunebuildError as error:
        return error.diagnostics
    spec, problems = _read(document)
    if spec is not None:
        problems += broken_rules(spec, _folder(file, document))
    return _in_order(problems)


def _folder(file: Path, document: Document) -> Folder:
    directory = file.resolve().parent
    return Folder(directory, tuple(directory / name for name in document.folders))


def _read(document: Document) -> tuple[Spec | None, list[Diagnostic]]:
    """The typed spec, and in what the document breaks the published schema: then as much as can be read."""
    problems = list(document.problems)
    try:
        # What the models accept without converting anything, the schema accepts: it is made from them, and
        # a test holds them to it. That spares a valid spec the import of the schema's validator.
        text = json.dumps(document.value, allow_nan=False)
        return Spec.model_validate_json(text, strict=True), problems
    except (ValidationError, ValueError, RecursionError):
        from tunebuild.spec._explain import violations

        known = {problem.position for problem in problems}
        found = list(violations(document))
        problems += [violation for violation in found if violation.position not in known]
    if not found:
        try:
            return Spec.model_validate(document.value), problems
        except ValidationError as error:  # such as 1e19, which the schema takes for a whole number
            for wrong in error.errors():
                location, message = wrong["loc"], wrong["msg"]
                if location[-1:] == ("[key]",):  # which is pydantic's way to say that the key itself is wrong
                    location = location[:-1]
                    message = f"the name {str(location[-1])!r} is wrong: {message}"
                place = document.position(location)
                if place not in known:
                    message = message[:1].lower() + message[1:]
                    problems.append(Diagnostic("invalid", message, "", dotted(location), place))
    if not isinstance(document.value, dict):
        return None, problems

    from tunebuild.spec._readable import readable

    return readable(Spec, document.value), problems


def _in_order(problems: list[Diagnostic]) -> tuple[Diagnostic, ...]:
    def key(d: Diagnostic) -> tuple[int, int]:
        return (d.position.line, d.position.column) if d.position else (0, 0)

    return tuple(dict.fromkeys(sorted(problems, key=key)))
