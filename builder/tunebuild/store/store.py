"""The content store: outputs of stages, found again by what went into them.

::

    records/<stage>/<key>.json    what a key's output is; published last, atomically
    trees/<digest>/               outputs, immutable; trees/<digest>.json lists their files
    builds/<name>/<stage>-<key>   what builds of that name have used; empty files
    work/<stage>-<key>/           unfinished runs and their checkpoints
    locks/                        one lock file a key
    memo.sqlite                   digests of files that have not changed

A kill at any moment leaves a work directory and nothing that a later build would believe: an output is
moved into place whole, and only then does a record name it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunebuild.errors import fail
from tunebuild.store.atomic import sync, write_atomically
from tunebuild.store.digest import Digest, canonical_json
from tunebuild.store.memo import DigestMemo
from tunebuild.store.stage import Inputs, Progress, Stage, StageKey, differences, inputs_of, key_of
from tunebuild.store.tree import Tree, load_manifest, save_manifest, scan

_MODE = 0o644
_COMPARED = 50  # earlier runs of a stage, among which the most similar is looked for


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a stage must run: the first input that differs from the most similar earlier run.

    ``field`` is empty if there is none.
    """

    field: str = ""
    old: object = None
    new: object = None

    def __str__(self) -> str:
        if not self.field:
            return "not built before"
        return f"{self.field}: {_short(self.old)} -> {_short(self.new)}"


class Store:
    """A store in a directory, safe for several builds at once.

    Args:
        root: made if absent.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("records", "trees", "work", "locks"):
            (root / name).mkdir(parents=True, exist_ok=True)
        self.memo = DigestMemo(root / "memo.sqlite")

    def find(self, stage: Stage) -> Tree | None:
        """The stage's output if it is here, else ``None``.

        Raises:
            TunebuildError: a record names an output that is gone, or of which a file was changed.
        """
        return self._load(key_of(stage))

    def ensure(self, stage: Stage, progress: Progress) -> Tree:
        """The stage's output: found, or made by running it."""
        key = key_of(stage)
        with self._lock(key):
            if found := self._load(key):
                return found
            work = self.scratch(stage).parent
            out = work / "out"
            if out.exists():
                shutil.rmtree(out)  # half an output of a killed run; checkpoints beside it stay
            out.mkdir(parents=True)
            (work / "scratch").mkdir(exist_ok=True)
            stage.run(work / "scratch", out, progress)
            tree = self._publish(key, inputs_of(stage), out)
            shutil.rmtree(work)
            return tree

    def adopt(self, stage: Stage, tree: Tree) -> None:
        """Record a tree of this store as a stage's output, where that is known without running it."""
        key = key_of(stage)
        with self._lock(key):
            self._write_record(key, inputs_of(stage), tree.digest)

    def note_use(self, stage: Stage, build: str) -> None:
        """Remember that builds of a name use a stage, so that later ones are compared with it."""
        place = self.root / "builds" / build
        place.mkdir(parents=True, exist_ok=True)
        (place / str(key_of(stage))).touch()

    def has_used(self, stage: str, build: str) -> bool:
        """Whether builds of a name have ever used a stage of this name."""
        return any((self.root / "builds" / build).glob(f"{stage}-*"))

    def why(self, stage: Stage, build: str | None = None) -> Reason:
        """Why :meth:`find` finds nothing, compared with earlier builds of that name, or with all of them."""
        # As plain JSON, in which records were written: tuples are lists there.
        inputs = json.loads(canonical_json(inputs_of(stage)))
        used = {path.name for path in (self.root / "builds").glob(f"{build or '*'}/{stage.name}-*")}
        records = (self.root / "records" / stage.name).glob("*.json")
        newest = sorted(
            (p for p in records if build is None or f"{stage.name}-{p.stem[:24]}" in used),
            key=lambda p: p.stat().st_mtime,
            reverse=True,
        )
        best: list[tuple[str, object, object]] = []
        for path in newest[:_COMPARED]:
            found = sorted(
                differences(json.loads(path.read_text("utf-8"))["inputs"], inputs), key=_says_little
            )
            if found and (not best or len(found) < len(best)):
                best = found
        return Reason(*best[0]) if best else Reason()

    def scratch(self, stage: Stage) -> Path:
        """Where an unfinished run of the stage keeps its checkpoints; it may not exist."""
        return self.root / "work" / str(key_of(stage)) / "scratch"

    def record(self, stage: Stage) -> Inputs | None:
        """The recorded inputs of a finished stage."""
        path = self._record_path(key_of(stage))
        return json.loads(path.read_text("utf-8"))["inputs"] if path.is_file() else None

    def verify(self, tree: Tree) -> None:
        """Read a tree back and compare every byte's digest.

        Raises:
            TunebuildError: names the first file that is not what was stored.
        """
        found = {f.path: f for f in scan(tree.root).files}
        written = {f.path: f for f in tree.files}
        for path in sorted({*found, *written}):
            if found.get(path) != written.get(path):
                raise _corrupt(tree.path(path))

    def _publish(self, key: StageKey, inputs: Inputs, out: Path) -> Tree:
        for path in out.rglob("*"):
            # Before it is digested: a change of mode counts as a change of the file afterwards.
            if path.is_file() and stat.S_IMODE(path.stat().st_mode) != _MODE:
                path.chmod(_MODE)
        made = scan(out, self.memo.digest)
        for file in made.files:
            sync(out / file.path)
        place = self._tree_path(made.digest)
        manifest = place.with_suffix(".json")
        if not place.exists():
            write_atomically(manifest, lambda p: save_manifest(made, p))
            out.rename(place)
            sync(place.parent)
            self.memo.moved(out, place)
        self._write_record(key, inputs, made.digest)
        return Tree(place, made.files)

    def _write_record(self, key: StageKey, inputs: Inputs, output: Digest) -> None:
        record = {"stage": key.stage, "key": key.digest, "output": output, "inputs": inputs}
        path = self._record_path(key)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda p: p.write_bytes(canonical_json(record)))

    def _load(self, key: StageKey) -> Tree | None:
        path = self._record_path(key)
        if not path.is_file():
            return None
        place = self._tree_path(Digest(json.loads(path.read_text("utf-8"))["output"]))
        if not place.with_suffix(".json").is_file():
            raise _corrupt(place)
        tree = load_manifest(place, place.with_suffix(".json"))
        self._check(tree)
        os.utime(path)  # when it was last used, for collection
        return tree

    def _check(self, tree: Tree) -> None:
        """Refuse an output with a file that was changed since it was digested: those are read again."""
        for file in tree.files:
            path = tree.path(file.path)
            if not path.is_file() or path.stat().st_size != file.size:
                raise _corrupt(path)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads run
            digests = pool.map(lambda file: self.memo.digest(tree.path(file.path)), tree.files)
            for file, digest in zip(tree.files, digests, strict=True):
                if digest != file.digest:
                    raise _corrupt(tree.path(file.path))

    def _tree_path(self, digest: Digest) -> Path:
        return self.root / "trees" / digest.removeprefix("sha256:")

    def _record_path(self, key: StageKey) -> Path:
        return self.root / "records" / key.stage / f"{key.digest.removeprefix('sha256:')}.json"

    @contextmanager
    def _lock(self, key: StageKey) -> Iterator[None]:
        # The kernel drops the lock when the process dies, however it dies.
        with (self.root / "locks" / f"{key}.lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _says_little(difference: tuple[str, object, object]) -> bool:
    """Whether a difference is one of digests, which follows from another one that people can read."""
    return all(isinstance(value, str) and value.startswith("sha256:") for value in difference[1:])


def _corrupt(path: Path) -> Exception:
    return fail(
        "store-corrupt",
        f"{path} is not what the build wrote",
        "something changed or removed it; 'tunebuild cache verify --remove' forgets what is damaged, "
        "then build again",
    )


def _short(value: object) -> str:
    if value is None:
        return "absent"
    text = value if isinstance(value, str) else canonical_json(value).decode()
    if text.startswith("sha256:"):
        return text[7:19]
    return text if len(text) <= 40 else text[:37] + "..."
