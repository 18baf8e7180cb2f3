"""A stage's output: a directory, and the digest of all that is in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tunebuild.store.digest import Digest, digest_file, digest_json


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file of a tree: POSIX path relative to the root, size in bytes, digest of its bytes."""

    path: str
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory whose content is known. Times, owners and modes are not part of it."""

    root: Path
    files: tuple[TreeFile, ...]

    @property
    def digest(self) -> Digest:
        """Digest over paths and contents."""
        return digest_json([[f.path, f.size, f.digest] for f in self.files])

    def path(self, *parts: str) -> Path:
        """A path inside the tree."""
        return self.root.joinpath(*parts)


class _Unbuilt:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name} of a stage's output was asked for before the stage ran")


#: Stands for the output of a stage that has not run, where only a later stage's own inputs are asked for.
UNBUILT = cast(Tree, _Unbuilt())


def scan(
    root: Path,
    digest: Callable[[Path], Digest] = digest_file,
    chosen: Callable[[Path], bool] = lambda path: True,
) -> Tree:
    """Look at every file below ``root``, in order of path, or at those of which ``chosen`` says so."""
    files = sorted(p for p in root.rglob("*") if chosen(p) and p.is_file())
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads run
        digests = pool.map(digest, files)
        rows = [(p.relative_to(root).as_posix(), p.stat().st_size) for p in files]
        return Tree(root, tuple(TreeFile(*row, found) for row, found in zip(rows, digests, strict=True)))


def save_manifest(tree: Tree, path: Path) -> None:
    """Write what a tree holds, for :func:`load_manifest`."""
    rows = [[f.path, f.size, f.digest] for f in tree.files]
    path.write_text(json.dumps(rows, indent=0) + "\n", "utf-8")


def load_manifest(root: Path, path: Path) -> Tree:
    """Read what a tree held when it was written."""
    rows = json.loads(path.read_text("utf-8"))
    return Tree(root, tuple(TreeFile(name, size, Digest(digest)) for name, size, digest in rows))
