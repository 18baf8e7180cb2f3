"""Which files of a dataset repository make up a split: what the datasets library says. Runs none of its code.

The library is shown a directory with the repository's file names, all empty, and its README.md, whose head
may declare configurations. So its own rules hold, and nothing is downloaded to find out.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tunebuild.errors import TunebuildError, fail
from tunebuild.extras import install_command
from tunebuild.sources.hub import HubRepository, list_files
from tunebuild.spec.endings import ENDINGS
from tunebuild.store import digest_bytes
from tunebuild.store.atomic import write_atomically


@dataclass(frozen=True, slots=True)
class Split:
    """A part of a dataset: ``train``, and of which configuration, where there are several."""

    name: str
    config: str | None = None

    def __str__(self) -> str:
        return f"{self.config}/{self.name}" if self.config else self.name


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """The commit that a revision stands for, and the names of a split's files there, in order."""

    commit: str
    names: tuple[str, ...]


def find_split(
    repository: HubRepository, revision: str, split: Split, cache: Path, token: str | None = None
) -> SplitFiles:
    """Ask the hub for a repository's file names, and find the split among them.

    Raises:
        TunebuildError: ``no-split``: there is none of that name, or no files that can be read; or the hub
            refuses or cannot be reached.
    """
    listed = list_files(repository, revision, cache, token)
    readme = listed.readme.read_text("utf-8", "replace") if listed.readme else ""
    names = _choose(listed.names, readme, split, repository)
    if unreadable := [name for name in names if not name.endswith(ENDINGS)]:
        message = f"{repository.name}: cannot read '{unreadable[0]}' of split '{split}'"
        raise fail("no-split", message, f"files must end in {', '.join(ENDINGS)}", path=repository.path)
    return SplitFiles(listed.commit, names)


def recall_split(
    repository: HubRepository, commit: str, split: Split, cache: Path, token: str | None = None
) -> SplitFiles:
    """:func:`find_split` of a commit, which never changes: found once, afterwards without asking the hub."""
    asked = json.dumps([repository.name, commit, split.config, split.name]).encode()
    path = cache / "splits" / f"{digest_bytes(asked).removeprefix('sha256:')}.json"
    if path.is_file():
        return SplitFiles(commit, tuple(json.loads(path.read_text("utf-8"))))
    found = find_split(repository, commit, split, cache, token)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(found.names))
    return found


def _choose(names: tuple[str, ...], readme: str, split: Split, repository: HubRepository) -> tuple[str, ...]:
    try:
        import datasets
    except ModuleNotFoundError:
        hint = install_command(("plan",))
        raise fail("no-datasets", "a split of a dataset needs datasets", hint, path=repository.path) from None
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch).resolve() / "dataset"
        directory.mkdir()
        for name in names:
            parts = PurePosixPath(name).parts
            if name.endswith(".py") or PurePosixPath(name).is_absolute() or ".." in parts:
                continue
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).touch()
        if readme:
            (directory / "README.md").write_text(readme, "utf-8")
        try:
            builder = datasets.load_dataset_builder(
                str(directory), name=split.config, cache_dir=str(Path(scratch) / "cache")
            )
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a stranger's README
            raise _no_split(repository, split, _words(error)) from None
        files = {str(name): list(paths) for name, paths in (builder.config.data_files or {}).items()}
        if split.name not in files:
            raise _no_split(repository, split, f"it has {', '.join(sorted(files))}")
        found = {Path(file).resolve().relative_to(directory).as_posix() for file in files[split.name]}
    return tuple(sorted(found))


def _words(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if "load_dataset(" not in line and "usage" not in line]
    return " ".join(lines)[:300].strip() or type(error).__name__


def _no_split(repository: HubRepository, split: Split, why: str) -> TunebuildError:
    hint = "see data.train[].split and config, or name a file with path"
    return fail("no-split", f"{repository.name} has no split '{split}': {why}", hint, path=repository.path)
