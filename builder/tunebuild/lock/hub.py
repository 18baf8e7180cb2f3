"""All access to a model hub, through huggingface_hub: what a revision is, and the files of a commit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from tunebuild.errors import TunebuildError, fail
from tunebuild.store import Digest, TreeFile, digest_file

# Weights in pickles run code when they are loaded; nothing here ever fetches one.
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model")


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A repository on the hub.

    Attributes:
        kind: whether it holds a model or data.
        name: e.g. ``org/name``.
        path: the field of the spec that names it, for messages.
    """

    kind: Literal["model", "dataset"]
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class HubSnapshot:
    """What a repository holds at a commit; only the files that were asked for."""

    commit: str
    files: tuple[TreeFile, ...]


def resolve(
    repository: HubRepository,
    revision: str,
    cache: Path,
    token: str | None = None,
    patterns: Sequence[str] = MODEL_FILES,
) -> HubSnapshot:
    """Find the commit that a branch, tag or commit stands for, and the digests of its files.

    Large files are not downloaded: the hub itself knows their SHA-256.

    Raises:
        TunebuildError: ``hub-...``: unknown, gated, out of reach, or too many requests.
    """
    hub = _library()
    with _translated(repository, revision):
        api = hub.HfApi(endpoint=_endpoint(), token=token)
        info = api.repo_info(
            repository.name, repo_type=repository.kind, revision=revision, files_metadata=True
        )
        files = []
        for entry in sorted(info.siblings, key=lambda s: s.rfilename):
            name = entry.rfilename
            if not _matches(name, patterns):
                continue
            if entry.lfs:
                files.append(TreeFile(name, entry.lfs.size, Digest("sha256:" + entry.lfs.sha256)))
                continue
            path = Path(
                hub.hf_hub_download(
                    repository.name,
                    name,
                    repo_type=repository.kind,
                    revision=info.sha,
                    cache_dir=cache,
                    endpoint=_endpoint(),
                    token=token,
                )
            )
            files.append(TreeFile(name, path.stat().st_size, digest_file(path)))
        return HubSnapshot(info.sha, tuple(files))


def fetch(
    repository: HubRepository,
    commit: str,
    cache: Path,
    token: str | None = None,
    patterns: Sequence[str] = MODEL_FILES,
    expected: Mapping[str, Digest] | None = None,
    digest: Callable[[Path], Digest] = digest_file,
) -> Path:
    """The directory of a commit's files: downloaded once, afterwards without asking the hub.

    Args:
        expected: digests that the files must have, by name.
        digest: computes or remembers a file's digest.

    Raises:
        TunebuildError: as :func:`resolve`, or ``hub-checksum``; the wrong file is forgotten then, so that
            another try fetches it again.
    """
    hub = _library()
    arguments: dict[str, Any] = {
        "repo_type": repository.kind,
        "revision": commit,
        "cache_dir": cache,
        "allow_patterns": list(patterns),
        # A star also stands for slashes there.
        "ignore_patterns": [] if any("/" in pattern for pattern in patterns) else ["*/*"],
        "endpoint": _endpoint(),
        "token": token,
    }
    with _translated(repository, commit):
        directory = Path(hub.snapshot_download(repository.name, **arguments))
    for name, wanted in (expected or {}).items():
        file = directory / name
        if file.is_file() and digest(file) == wanted:
            continue
        wrong = "the hub sent another file than the lock names" if file.exists() else "is not there"
        file.resolve().unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        hint = "try again; if it stays so, run 'tunebuild lock --update model' and find out what changed"
        raise fail("hub-checksum", f"{repository.name}: {name}: {wrong}", hint, path=repository.path)
    return directory


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def _library() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise fail("no-hub", "a hub needs huggingface_hub", "pip install 'tunebuild[train]'") from None
    return huggingface_hub


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")  # the library reads it once, when it is imported


@contextmanager
def _translated(repository: HubRepository, revision: str) -> Iterator[None]:
    """Turn the library's errors into ours."""
    from huggingface_hub import errors

    def bad(code: str, message: str, hint: str) -> TunebuildError:
        return fail(code, f"{repository.name}: {message}", hint, path=repository.path)

    try:
        yield
    except errors.GatedRepoError:
        raise bad(
            "hub-gated", "access is gated", "accept its terms and give a token, see model.token"
        ) from None
    except errors.RepositoryNotFoundError:
        hint = f"for a private one give a token, see model.token; for a directory write ./{repository.name}"
        raise bad("hub-unknown", "the hub has no such repository", hint) from None
    except errors.RevisionNotFoundError:
        raise bad("hub-revision", f"has no revision {revision}", "see its list of commits") from None
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 429:
            hint = "wait a few minutes, or give a token; what is here already is kept"
            raise bad("hub-rate-limit", "the hub asks us to slow down", hint) from None
        raise bad("hub", str(error).splitlines()[0], "try again; files already here are kept") from None
    except errors.LocalEntryNotFoundError:
        hint = "check the network or HF_ENDPOINT, or use a directory"
        raise bad("hub-offline", "not in the cache, and the hub cannot be reached", hint) from None
    except OSError as error:
        raise bad("hub", str(error).splitlines()[0], "try again; files already here are kept") from None
