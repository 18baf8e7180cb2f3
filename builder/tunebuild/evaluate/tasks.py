"""What ``evaluation.tasks`` means: tasks that lm-eval ships, by name, and the author's own, by content."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tunebuild.errors import fail
from tunebuild.extras import install_command
from tunebuild.heavy_imports import heavy_imports
from tunebuild.spec.folder import Folder
from tunebuild.store import Digest, Inputs

_LOADERS = ("json", "csv", "parquet", "text")  # of the datasets library, for files


@dataclass(frozen=True, slots=True)
class Task:
    """A task.

    Attributes:
        name: of the task, or of a group that ships.
        config: the author's own, with the files' names as they are written; ``None`` for one that ships.
        files: its files of documents by those names.
        digests: of their contents.
    """

    name: str
    config: dict[str, Any] | None = None
    files: tuple[tuple[str, Path], ...] = ()
    digests: tuple[Digest, ...] = ()

    def inputs(self) -> Inputs:
        """What the task is, wherever it stands."""
        return {"name": self.name, "config": self.config, "files": list(self.digests)}

    def for_library(self, cache: Path) -> str | dict[str, Any]:
        """The task as lm-eval takes it: a name, or a configuration that finds its files.

        Args:
            cache: where documents are unpacked to.
        """
        if self.config is None:
            return self.name
        config, places = deepcopy(self.config), {name: str(path) for name, path in self.files}
        data = config["dataset_kwargs"]
        data["data_files"] = _placed(data["data_files"], places)
        data["cache_dir"] = str(cache)
        return config


def read_tasks(
    names: Sequence[str],
    directory: Path,
    digest: Callable[[Path], Digest],
    gated: Collection[str],
    others: Sequence[Path] = (),
) -> tuple[Task, ...]:
    """The tasks that a spec names.

    Args:
        names: of ``evaluation.tasks``.
        directory: the spec's.
        digest: computes or remembers a file's digest.
        gated: tasks that ``gates.tasks`` speaks of.
        others: directories of the specs that it extends, where there may be tasks, too.

    Raises:
        TunebuildError: a task's file cannot be used, two have one name, or a gate is on none of them.
    """
    found: dict[str, Task] = {}
    for index, name in enumerate(names):
        path = f"evaluation.tasks[{index}]"
        for task in _meant(name, path, Folder(directory, tuple(others)), digest):
            if task.name in found:
                raise fail("task-twice", f"there are two tasks of the name '{task.name}'", path=path)
            found[task.name] = task
    for name in gated:
        if name not in found:
            hint = f"there are: {', '.join(found) or 'none'}"
            raise fail("gate", f"no task '{name}' is in evaluation.tasks", hint, path=f"gates.tasks.{name}")
    return tuple(found.values())


def require_tasks(tasks: Sequence[Task]) -> None:
    """Say before a training that its tasks cannot be done after it.

    Raises:
        TunebuildError: lm-eval is not installed, or does not know or cannot load one of them.
    """
    if not tasks:
        return
    if find_spec("lm_eval") is None:
        hint = install_command(("lm-eval",))
        raise fail("no-lm-eval", "tasks need lm-eval, which is not installed", hint, path="evaluation.tasks")
    with heavy_imports():
        from tunebuild.evaluate.harness import check_tasks

    check_tasks(tasks)


def _meant(name: str, path: str, directory: Folder, digest: Callable[[Path], Digest]) -> Iterator[Task]:
    if not name.startswith(("./", "../")):
        yield Task(name)
        return
    place = directory / name
    files = sorted(place.glob("*.yaml")) if place.is_dir() else [place]
    if not files:
        raise fail("no-task", f"'{name}' holds no .yaml file", path=path)
    for file in files:
        yield _read(file, path, directory, digest)


def _read(file: Path, path: str, directory: Folder, digest: Callable[[Path], Digest]) -> Task:
    try:
        config = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, ValueError, OSError) as error:
        said = " ".join(str(error).split())
        hint = "a task beside the spec runs no code" if "!function" in said else ""
        raise fail("bad-task", f"{file.name} cannot be read: {said}", hint, path=path) from error
    data = config.get("dataset_kwargs") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("task"), str):
        raise fail("bad-task", f"{file.name} names no task", "write task: NAME", path=path)
    for key in ("include", "class", "group"):
        if key in config:
            raise fail("bad-task", f"{file.name} has '{key}'", "write the task out in full", path=path)
    if config.get("dataset_path") not in _LOADERS or not isinstance(data, dict) or "data_files" not in data:
        hint = "dataset_path: json, and dataset_kwargs: {data_files: {test: FILE}}"
        raise fail("bad-task", f"{file.name} names no files of documents", hint, path=path)
    names = list(dict.fromkeys(_names(data["data_files"])))
    for name in names:
        place = (file.parent / name).resolve()
        if not directory.holds(str(place)) or not place.is_file():
            message = f"{file.name} names '{name}', which is no file in the spec's directory"
            raise fail("no-file", message, f"looked for {place}", path=path)
    places = tuple((name, (file.parent / name).resolve()) for name in names)
    return Task(config["task"], config, places, tuple(digest(place) for _, place in places))


def _names(value: Any) -> Iterator[str]:
    """Names of files, however the datasets library lets them be written."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _names(inner)
    else:
        yield str(value)


def _placed(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _placed(inner, places) for key, inner in value.items()}
    if isinstance(value, list):
        return [_placed(inner, places) for inner in value]
    return places[str(value)]
