"""Repositories on a hub as a spec names them: which commit is meant, and its files."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunebuild.errors import fail
from tunebuild.lock.spec_lock import RepositoryLock
from tunebuild.sources.dataset_files import Split, find_split, recall_split
from tunebuild.sources.hub import HubRepository, fetch, resolve
from tunebuild.spec.secret import reveal
from tunebuild.store import Digest

_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a spec asks of a repository.

    Attributes:
        repository: which one, and the field that names it.
        revision: commit, branch or tag; ``main`` if ``None``.
        token: reference to a secret, if one is needed.
        patterns: the files; not used where a split is named.
        split: the split of a dataset whose files they are.
    """

    repository: HubRepository
    revision: str | None
    token: str | None
    patterns: tuple[str, ...]
    split: Split | None = None

    @property
    def commit(self) -> str | None:
        """The commit that the spec itself names, if it does."""
        return self.revision if self.revision and _COMMIT.fullmatch(self.revision) else None

    def kept(self, locked: RepositoryLock | None) -> RepositoryLock | None:
        """The lock, if the spec still means the same."""
        same = locked and (locked.base, locked.revision) == (self.repository.name, self.revision)
        return locked if same else None

    def lock(self, locked: RepositoryLock | None, cache: Path) -> RepositoryLock:
        """What a lock says of it; no large file is downloaded.

        Raises:
            TunebuildError: the hub refuses or cannot be reached.
        """
        if kept := self.kept(locked):
            return kept
        revision, patterns = self.revision or "main", self.patterns
        if self.split:
            chosen = find_split(self.repository, revision, self.split, cache, self._secret())
            revision, patterns = chosen.commit, tuple(map(glob.escape, chosen.names))
        snapshot = resolve(self.repository, revision, cache, self._secret(), patterns=patterns)
        files = {f.path: f.digest for f in snapshot.files}
        name = self.repository.name
        return RepositoryLock(base=name, revision=self.revision, commit=snapshot.commit, files=files)

    def fetch(
        self,
        locked: RepositoryLock | None,
        cache: Path,
        digest: Callable[[Path], Digest],
        names: tuple[str, ...] | None = None,
    ) -> Path:
        """The directory of its files, downloaded once.

        Args:
            locked: what the lock says of it.
            cache: where repositories are kept.
            digest: of a file's content.
            names: the files that are needed, if not all.

        Raises:
            TunebuildError: it is not pinned to a commit, the hub refuses or cannot be reached, or a file is
                not what the lock names.
        """
        kept = self.kept(locked)
        commit = self._pinned(kept)
        expected = kept.files if kept else None
        patterns = self.patterns
        if names is not None:
            patterns = tuple(map(glob.escape, names))
            expected = {n: d for n, d in kept.files.items() if n in names} if kept else None
        return fetch(
            self.repository, commit, cache, self._secret(), patterns, expected=expected, digest=digest
        )

    def names(self, locked: RepositoryLock | None, cache: Path) -> tuple[str, ...]:
        """The names of the files of its split, in order; of no split, :attr:`patterns`.

        Raises:
            TunebuildError: as :meth:`fetch`.
        """
        if self.split is None:
            return self.patterns
        if kept := self.kept(locked):
            return tuple(sorted(kept.files))
        return recall_split(self.repository, self._pinned(None), self.split, cache, self._secret()).names

    def _pinned(self, kept: RepositoryLock | None) -> str:
        if commit := self.commit or (kept.commit if kept else None):
            return commit
        raise fail(
            "no-commit",
            f"'{self.repository.name}' is not pinned to a commit",
            "run 'tunebuild lock', which resolves the revision, or write its 40-digit commit there",
            path=self.repository.path,
        )

    def _secret(self) -> str | None:
        if not self.token:
            return None
        return reveal(self.token, self.repository.path.rpartition(".")[0] + ".token")
