"""What the verbs that need a finished build share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunebuild.cli._progress import Reporter
from tunebuild.errors import TunebuildError
from tunebuild.pipeline import Built, Pipeline, build
from tunebuild.spec import load_spec
from tunebuild.store import Store


def build_spec(spec: Path, store: Path, overrides: Sequence[str] = ()) -> Built:
    """Validate and build a spec, showing progress; errors get their place in the spec."""
    loaded = load_spec(spec, overrides)
    with Reporter() as reporter:
        try:
            return build(Pipeline(loaded, Store(store)), reporter)
        except TunebuildError as error:
            raise loaded.place(error) from error
