"""A spec as it stood at a revision of its Git repository, with the files that it named then."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tunebuild.errors import TunebuildError, fail

PREFIX = "git:"
_SYMLINK, _SUBMODULE = "120000", "160000"


@contextmanager
def spec_at(spec: Path, revision: str) -> Iterator[Path]:
    """The spec's file in a copy of its repository as of a revision; gone when the context ends.

    Files come out of Git's objects, through the filters that a checkout uses, so files in Git LFS are whole.
    What is the same as in the working tree is linked, not copied. A base model's directory that Git does not
    track, as is usual, is taken from the working tree: Git does not know how it was.

    Args:
        spec: in the working tree.
        revision: as Git understands it: a branch, tag or commit.

    Raises:
        TunebuildError: ``no-revision``: no repository, revision, or no such spec in it; and within the
            context, errors about the copy's files name the revision instead.
    """
    folder = spec.resolve().parent
    top = Path(_git(folder, "rev-parse", "--show-toplevel").decode().rstrip("\n"))
    name = spec.resolve().relative_to(top).as_posix()
    # A commit's name, which cannot be taken for an option.
    given = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    commit = given.decode().strip()
    listed = _git(top, "ls-tree", "-r", "-z", "--format=%(objectmode) %(path)", commit)
    modes = dict(entry.split(" ", 1)[::-1] for entry in _names(listed))
    tracked = frozenset(file for file, mode in modes.items() if mode != _SUBMODULE)
    if name not in tracked:
        raise fail("no-revision", f"{revision} has no {name}", "has the spec another name there?")
    other = _names(_git(top, "diff", "--name-only", "-z", "--no-renames", commit, "--"))
    # Beside Git's own files: on the disk of the working tree, where what is the same can be linked.
    inside = _git(folder, "rev-parse", "--absolute-git-dir").decode().rstrip("\n")
    near = inside if os.access(inside, os.W_OK) else None
    with TemporaryDirectory(prefix="tunebuild-", dir=near) as made:
        copy = Path(made).resolve() / "tree"
        for file in sorted(tracked):
            target = copy / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if file not in other and (top / file).is_file() and not (top / file).is_symlink():
                _link(top / file, target)
            else:
                content = _git(top, "cat-file", "--filters", f"{commit}:{file}")
                if modes[file] == _SYMLINK:
                    target.symlink_to(os.fsdecode(content))
                else:
                    target.write_bytes(content)
        for beside in _untracked_folders(top, tracked):
            if not (copy / beside).exists() and (copy / beside).parent.is_dir():
                (copy / beside).symlink_to(top / beside, target_is_directory=True)
        try:
            yield copy / name
        except TunebuildError as error:
            shown = f"{PREFIX}{revision}:"
            raise TunebuildError(
                tuple(
                    replace(
                        d,
                        message=d.message.replace(f"{copy}/", shown),
                        hint=d.hint.replace(f"{copy}/", shown),
                        position=d.position
                        and replace(d.position, file=d.position.file.replace(f"{copy}/", shown)),
                    )
                    for d in error.diagnostics
                ),
                error.exit_code,
            ) from None


def _untracked_folders(top: Path, tracked: frozenset[str]) -> Iterator[str]:
    """Directories with a model that Git tracks nothing of, beside what it tracks."""
    for folder in sorted({str(Path(name).parent) for name in tracked}):
        if not (top / folder).is_dir():
            continue
        for inner in sorted((top / folder).iterdir()):
            name = inner.relative_to(top).as_posix()
            model = (inner / "config.json").is_file()
            if model and not any(file.startswith(f"{name}/") for file in tracked):
                yield name


def _link(source: Path, target: Path) -> None:
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)


def _names(listed: bytes) -> frozenset[str]:
    return frozenset(os.fsdecode(name) for name in listed.split(b"\0") if name)


def _git(folder: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        raise fail("no-revision", "git is not installed", "comparing with a revision needs it") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        message = said[0].removeprefix("fatal: ") if said else f"there is no revision {arguments[-1]}"
        hint = "a shallow clone lacks older commits: in a CI job, check out with their history"
        raise fail("no-revision", message.replace("^{commit}", ""), hint)
    return done.stdout
