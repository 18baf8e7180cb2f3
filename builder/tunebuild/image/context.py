"""The Docker build context of a planned image: a Dockerfile and, beside it, what it copies.

The same plan that the daemonless back end writes, so that the two images hold the same tree.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import jinja2

from tunebuild import resources
from tunebuild.errors import fail
from tunebuild.image.oci.archive import explained
from tunebuild.image.oci.copy import copy_range
from tunebuild.image.oci.layer import (
    Entry,
    FileRange,
    FilesLayer,
    Layer,
    Segment,
    Symlink,
    size_of,
)
from tunebuild.image.oci.stream import Counter, file_blocks
from tunebuild.image.oci.tar import END, entry_header, missing_parents
from tunebuild.image.plan import ImagePlan
from tunebuild.store import Progress, Silent

_MARK = "rendered by tunebuild"


@dataclass(frozen=True, slots=True)
class ContextFile:
    """One path of the context: a file of ``segments``, a symlink, or (``None``) a directory."""

    name: str
    content: tuple[Segment, ...] | Symlink | None
    mode: int = 0o644

    @property
    def size(self) -> int:
        """Length in bytes; 0 for what is not a file."""
        return sum(map(size_of, self.content)) if isinstance(self.content, tuple) else 0


@dataclass(frozen=True, slots=True)
class _Step:
    """One layer as the Dockerfile sees it."""

    source: str
    created_by: str
    is_tar: bool


def build_context(plan: ImagePlan) -> tuple[ContextFile, ...]:
    """All files of the context, the Dockerfile first. Reads no contents."""
    steps: list[_Step] = []
    files: list[ContextFile] = []
    for number, layer in enumerate(plan.layers):
        source = f"layers/{number:02}-{_slug(layer.name)}"
        if isinstance(layer, Layer):
            steps.append(_Step(f"{source}.tar", layer.created_by, True))
            files.append(ContextFile(f"{source}.tar", layer.segments))
        else:
            steps.append(_Step(f"{source}/", layer.created_by, False))
            files.extend(_files_of(layer, source))
    dockerfile = ContextFile("Dockerfile", (_dockerfile(plan, steps).encode(),))
    return dockerfile, *sorted(files, key=lambda file: file.name.encode())


def context_stream(files: Iterable[ContextFile], progress: Progress) -> Iterator[bytes]:
    """The context as one tar in blocks, for Docker; nothing is written on this side."""
    files = tuple(files)
    counter = Counter(sum(file.size for file in files), progress)
    known: set[str] = set()
    for file in files:
        for parent in missing_parents(file.name, known):
            yield entry_header(parent, mode=0o755, kind="dir")
        if file.content is None:
            yield entry_header(file.name, mode=file.mode, kind="dir")
        elif isinstance(file.content, Symlink):
            yield entry_header(file.name, mode=0o777, kind="symlink", link=file.content.target)
        else:
            header = entry_header(file.name, size=file.size, mode=file.mode)
            yield from file_blocks(header, file.content, counter, file.name)
    yield END


def render_context(plan: ImagePlan, target: Path, progress: Progress | None = None) -> None:
    """Write the context into the directory ``target``: all that any builder needs, with no network.

    An earlier rendering is replaced in one step; any other directory that is not empty is left alone.

    Raises:
        TunebuildError: ``not-a-context``, ``disk-full``, ``cannot-write`` or ``file-changed``.
    """
    progress = progress or Silent()
    if target.exists() and not _is_replaceable(target):
        raise fail("not-a-context", f"{target} holds something else", "name a new or empty directory")
    files = build_context(plan)
    partial = target.with_name(f".{target.name}.partial")
    with explained(target):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            _write(files, partial, progress)
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _write(files: tuple[ContextFile, ...], root: Path, progress: Progress) -> None:
    total, done = sum(file.size for file in files), 0
    for file in files:
        path = root / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(file.content, Symlink):
            path.symlink_to(file.content.target)
            continue
        else:
            with path.open("xb") as sink:
                for segment in file.content:
                    _append(segment, sink)
            done += file.size
            progress.step(done, total, file.name)
        path.chmod(file.mode)
    for directory, _, _ in os.walk(root):
        Path(directory).chmod(0o755)  # COPY keeps modes, so no umask may reach the image through them


def _append(segment: Segment, sink: BinaryIO) -> None:
    if isinstance(segment, FileRange):
        copy_range(segment, sink, lambda _: None, lambda _: None)
    else:
        sink.write(segment)


def _is_replaceable(target: Path) -> bool:
    if not target.is_dir():
        return False
    dockerfile = target / "Dockerfile"
    if dockerfile.is_file():
        return _MARK in dockerfile.read_text("utf-8", "replace").partition("\n")[0]
    return not any(target.iterdir())


def _files_of(layer: FilesLayer, source: str) -> Iterator[ContextFile]:
    for entry in layer.entries:
        yield ContextFile(f"{source}/{entry.name}", _content(entry), entry.mode)


def _content(entry: Entry) -> tuple[Segment, ...] | Symlink | None:
    if entry.content is None or isinstance(entry.content, Symlink):
        return entry.content
    return (entry.content,)


def _dockerfile(plan: ImagePlan, steps: list[_Step]) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - not HTML; values are quoted for Dockerfiles
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(quoted=_quoted, exec_form=_exec_form)
    template = environment.from_string(
        resources.path("templates", "docker", "Dockerfile.j2").read_text("utf-8")
    )
    title = plan.reference.repository.rpartition("/")[2]
    return template.render(title=title, reference=plan.reference, layers=steps, runtime=plan.runtime)


def _quoted(value: str) -> str:
    """A value in double quotes, with the three characters escaped that mean something inside them."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def _exec_form(words: Iterable[str]) -> str:
    return json.dumps(list(words))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
