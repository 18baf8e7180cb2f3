"""The files that a spec's rows come from: beside it, or from repositories of a hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunebuild.data.reading import count_rows
from tunebuild.data.rows import RowSource
from tunebuild.errors import fail
from tunebuild.lock.spec_lock import SpecLock
from tunebuild.sources.dataset_files import Split
from tunebuild.sources.hub import HubRepository
from tunebuild.sources.repository import Wanted
from tunebuild.spec import Spec
from tunebuild.spec.data import DataSource
from tunebuild.store import Digest


def wanted_datasets(spec: Spec) -> dict[str, Wanted]:
    """The dataset repositories that a spec names, under the names that a lock uses."""
    data = spec.data
    return {
        _name(source): _wanted(source, f"{place}[{index}].hub")
        for place, sources in (("data.train", data.train), ("data.eval.files", data.eval.files))
        for index, source in enumerate(sources)
        if source.hub is not None
    }


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """Finds the files of sources.

    Attributes:
        directory: the spec's.
        hub_cache: where repositories are kept.
        lock: decides what is fetched.
        digest: of a file's content.
    """

    directory: Path
    hub_cache: Path
    lock: SpecLock | None
    digest: Callable[[Path], Digest]

    def find(self, sources: tuple[DataSource, ...], place: str) -> Iterator[RowSource]:
        """Their rows, file by file; downloads what is not here yet, and of a source with ``max_rows`` no more
        than that takes.

        Args:
            sources: of the spec.
            place: their field, for messages.

        Raises:
            TunebuildError: ``no-file``: a repository lacks one.
        """
        for index, source in enumerate(sources):
            columns, where, left = dict(source.columns), dict(source.where), source.max_rows
            names, locate = self._files(source, f"{place}[{index}].hub")
            # Repositories have files of the same names.
            above = f"{source.hub}/" if source.split else ""
            for number, name in enumerate(names, 1):
                file, shown = locate(name), above + name
                yield RowSource(file, shown, source.format, columns, where, source.weight, left)
                if left is not None and number < len(names):
                    left -= count_rows(file, shown, left)
                    if not left:
                        break

    def _files(self, source: DataSource, path: str) -> tuple[Sequence[str], Callable[[str], Path]]:
        """The names of a source's files, and what finds one of them."""
        if source.hub is None:
            return source.files(self.directory), self.directory.joinpath
        locked = self.lock.datasets.get(_name(source)) if self.lock else None
        wanted = _wanted(source, path)
        names = wanted.names(locked, self.hub_cache)
        fetch = partial(wanted.fetch, locked, self.hub_cache, self.digest)
        together = fetch(names) if source.max_rows is None else None

        def locate(name: str) -> Path:
            file = (together or fetch((name,))) / name
            if not file.is_file():
                raise fail("no-file", f"{source.hub} has no file '{name}'", path=path)
            return file

        return names, locate


def _name(source: DataSource) -> str:
    repository = f"{source.hub}@{source.revision or 'main'}"
    split = _split(source)
    return f"{repository}#{split}" if split else f"{repository}/{source.path}"


def _split(source: DataSource) -> Split | None:
    return Split(source.split, source.config) if source.split else None


def _wanted(source: DataSource, path: str) -> Wanted:
    assert source.hub is not None
    repository = HubRepository("dataset", source.hub, path)
    files = () if source.path is None else (source.path,)
    return Wanted(repository, source.revision, source.token, files, _split(source))
