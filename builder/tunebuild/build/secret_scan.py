"""Refuses an image in which a secret stands: in a text of the build, in its settings or in its history.

Secrets are found by the forms of providers' tokens, as in rows, and by value: what a variable holds that the
spec names as a secret must be nowhere. Weights, packages and the tokenizer's vocabulary are not looked into.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from typing import Any

from tunebuild.data.privacy import scan, versions
from tunebuild.errors import Diagnostic, TunebuildError
from tunebuild.image.oci.layer import FilesLayer, Symlink, read_segments
from tunebuild.image.plan import APP, BUNDLE, ImagePlan
from tunebuild.spec import Spec
from tunebuild.spec.canonical import effective

_VARIABLE = re.compile(r"^\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}$")
_SHORTEST = 8  # characters of a value; a shorter one would be found everywhere
_NOT_TEXT = (".safetensors", "/tokenizer.json", "model.safetensors.index.json")
# What holds rows: there, the spec's own policy for rows decides about forms.
_ROWS = (f"{BUNDLE}/prompt/checks.jsonl", f"{BUNDLE}/prompt/golden.json", f"{BUNDLE}/build/")


@dataclass(frozen=True, slots=True)
class SecretScan:
    """Looks into a planned image before it is one.

    Attributes:
        values: what must not be in it, by the variable that holds it.
        rows: whether files that hold rows are searched for forms, too.
    """

    values: tuple[tuple[str, str], ...]
    rows: bool

    @classmethod
    def of(cls, spec: Spec) -> SecretScan:
        """What a spec and this environment ask for."""
        names = sorted(set(_variables(effective(spec))))
        values = ((name, os.environ.get(name, "")) for name in names)
        return cls(tuple(v for v in values if len(v[1]) >= _SHORTEST), spec.data.privacy.secrets == "error")

    @property
    def inputs(self) -> dict[str, Any]:
        """What decides besides the image: a new scanner looks again."""
        try:
            scanner = versions(("secret",))
        except PackageNotFoundError:  # a plan needs none; a build without one is refused
            scanner = {}
        return {"version": 1, "rows": self.rows, **scanner}

    def check(self, plan: ImagePlan) -> None:
        """Look.

        Raises:
            TunebuildError: ``secret-in-image``, with every place and no secret; or the scanner is missing.
        """
        problems = [
            Diagnostic(
                "secret-in-image",
                f"{place} holds {what}, so no image is made of it",
                "take it out where it comes from, and revoke it",
            )
            for place, text, forms in self._texts(plan)
            for what in self._found(text, forms)
        ]
        if problems:
            raise TunebuildError(tuple(problems))

    def _found(self, text: str, forms: bool) -> Iterator[str]:
        for name, value in self.values:
            if value in text:
                yield f"the value of the environment variable {name}"
        if forms:
            yield from (f"what looks like a secret ({found.kind}: {found.masked})" for found in _forms(text))

    def _texts(self, plan: ImagePlan) -> Iterator[tuple[str, str, bool]]:
        """Place, text, and whether forms count there."""
        for name, value in plan.runtime.env:
            yield f"the variable {name}", f"{name}={value}", True
        for name, value in plan.runtime.labels:
            yield f"the label {name}", f"{name}={value}", True
        yield "the entrypoint", " ".join(plan.runtime.entrypoint), True
        for layer in plan.layers:
            yield f"the history of layer '{layer.name}'", layer.created_by, True
            if not isinstance(layer, FilesLayer):
                continue
            for entry in layer.entries:
                if entry.content is None or entry.name.endswith(_NOT_TEXT) or entry.name.startswith(APP):
                    continue  # the app is this program's own code, the same in every image
                if isinstance(entry.content, Symlink):
                    continue
                text = b"".join(read_segments([entry.content])).decode("utf-8", "replace")
                yield f"/{entry.name}", text, self.rows or not entry.name.startswith(_ROWS)


def _forms(text: str) -> Iterable[Any]:
    return scan(text, personal=False)


def _variables(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _variables(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _variables(inner)
    elif isinstance(value, str) and (match := _VARIABLE.match(value)):
        yield match[1]
