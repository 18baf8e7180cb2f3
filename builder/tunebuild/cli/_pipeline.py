"""A spec's stages, opened once for all verbs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tunebuild.build.pipeline import Pipeline
from tunebuild.errors import TunebuildError
from tunebuild.lock.find import find_lock
from tunebuild.lock.spec_lock import SpecLock
from tunebuild.spec import load_spec
from tunebuild.store import Store
from tunebuild.train.plan.settings import Device


def pipeline_of(
    spec: Path,
    store: Path,
    overrides: Sequence[str] = (),
    lock: SpecLock | None = None,
    device: Device | None = None,
    device_memory: int | None = None,
    lock_file: Path | None = None,
) -> Pipeline:
    """Validate a spec.

    Args:
        spec: the file.
        store: where stages are kept.
        overrides: ``PATH=VALUE`` texts.
        lock: what is fetched, if the spec has no lock.
        device: where training would run; this machine decides if left out.
        device_memory: bytes of that device.
        lock_file: the spec's lock; found beside the spec or its bases if left out.

    Raises:
        TunebuildError: what is wrong with spec or lock.
    """
    loaded = load_spec(spec, overrides)
    return Pipeline(loaded, Store(store), find_lock(loaded, lock_file).lock or lock, device, device_memory)


@contextmanager
def placed(pipeline: Pipeline) -> Iterator[None]:
    """Give errors their place in the spec."""
    try:
        yield
    except TunebuildError as error:
        raise pipeline.loaded.place(error) from error
