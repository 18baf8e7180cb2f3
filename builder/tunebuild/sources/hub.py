"""All access to a model hub, through huggingface_hub: what a revision is, and the files of a commit."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from tunebuild.errors import TunebuildError, fail
from tunebuild.extras import install_command
from tunebuild.store import Digest, TreeFile, digest_file

# Weights in pickles run code when they are loaded; nothing here ever fetches one.
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model")


#: The same weights once more, as the makers' own code reads them.
_SECOND_COPY = "consolidated*.safetensors*"


def is_second_copy(name: str, names: Collection[str]) -> bool:
    """Whether a file holds weights that the shards beside it hold, too: transformers never reads it."""
    others = (other for other in names if other.endswith(".safetensors") and other != name)
    return fnmatch(name, _SECOND_COPY) and any(not fnmatch(other, _SECOND_COPY) for other in others)


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


@dataclass(frozen=True, slots=True)
class Listing:
    """The names of a commit's files in order, and its README.md, which is downloaded, if it has one."""

    commit: str
    names: tuple[str, ...]
    readme: Path | None


def list_files(repository: HubRepository, revision: str, cache: Path, token: str | None = None) -> Listing:
    """What a revision holds.

    Raises:
        TunebuildError: as :func:`resolve`.
    """
    hub = _library()
    with _translated(repository, revision):
        api = hub.HfApi(endpoint=_endpoint(), token=token)
        info = api.repo_info(repository.name, repo_type=repository.kind, revision=revision)
        names = tuple(sorted(entry.rfilename for entry in info.siblings))
        readme = None
        if "README.md" in names:
            readme = _download(hub, repository, info.sha, "README.md", cache, token)
        return Listing(info.sha, names, readme)


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
        names = {entry.rfilename for entry in info.siblings}
        for entry in sorted(info.siblings, key=lambda s: s.rfilename):
            name = entry.rfilename
            if not _matches(name, patterns) or is_second_copy(name, names):
                continue
            if entry.lfs:
                files.append(TreeFile(name, entry.lfs.size, Digest("sha256:" + entry.lfs.sha256)))
                continue
            path = _download(hub, repository, info.sha, name, cache, token)
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
        "ignore_patterns": [
            *([] if any("/" in pattern for pattern in patterns) else ["*/*"]),
            *([_SECOND_COPY] if patterns == MODEL_FILES else []),
        ],
        "endpoint": _endpoint(),
        "token": token,
    }
    with _translated(repository, commit):
        directory = Path(hub.snapshot_download(repository.name, **arguments))
    for name, wanted in (expected or {}).items():
        file = directory / name
        if not file.is_file():
            _complete(repository, commit, name, cache, token)
        if file.is_file() and digest(file) == wanted:
            continue
        wrong = "the hub sent another file than the lock names" if file.exists() else "is not there"
        file.resolve().unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        hint = "try again; if it stays so, run 'tunebuild lock --update model' and find out what changed"
        raise fail("hub-checksum", f"{repository.name}: {name}: {wrong}", hint, path=repository.path)
    return directory


def _complete(repository: HubRepository, commit: str, name: str, cache: Path, token: str | None) -> None:
    """Fetch a file that a snapshot lacks, if the commit has it.

    Without the hub the library takes a cache for whole that only :func:`resolve` has written to.
    """
    hub = _library()
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with _translated(repository, commit), suppress(RemoteEntryNotFoundError):
        _download(hub, repository, commit, name, cache, token)


def _download(
    hub: Any, repository: HubRepository, commit: str, name: str, cache: Path, token: str | None
) -> Path:
    return Path(
        hub.hf_hub_download(
            repository.name,
            name,
            repo_type=repository.kind,
            revision=commit,
            cache_dir=cache,
            endpoint=_endpoint(),
            token=token,
        )
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def _library() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise fail("no-hub", "a hub needs huggingface_hub", install_command(("plan",))) from None
    return huggingface_hub


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")  # the library reads it once, when it is imported


@contextmanager
def _translated(repository: HubRepository, revision: str) -> Iterator[None]:
    """Turn the library's errors into ours."""
    from huggingface_hub import errors

    # The library's name for its HTTP client's base error; which client that is differs between versions.
    transport = errors.HfHubHTTPError.__mro__[1]
    try:
        yield
    except (transport, errors.HFValidationError, OSError) as error:
        raise _explained(error, repository, revision) from None


def _explained(error: Exception, repository: HubRepository, revision: str) -> TunebuildError:
    from huggingface_hub import errors

    def bad(code: str, message: str, hint: str) -> TunebuildError:
        return fail(code, f"{repository.name}: {message}", hint, path=repository.path)

    # Where nothing is in the cache, the library reports that, and a refusal by the hub only as its cause.
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(
        error.__cause__, errors.HfHubHTTPError
    ):
        error = error.__cause__
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    if isinstance(error, errors.HFValidationError):
        return bad("hub-unknown", "this is not the name of a repository", "write it as OWNER/NAME")
    if isinstance(error, errors.RevisionNotFoundError):
        return bad("hub-revision", f"has no revision {revision}", "see its list of commits")
    if isinstance(error, errors.RepositoryNotFoundError) and not isinstance(error, errors.GatedRepoError):
        hint = f"for a private one give a token, see model.token; for a directory write ./{repository.name}"
        return bad("hub-unknown", "the hub has no such repository", hint)
    if status in (401, 403):
        return bad("hub-gated", "access is gated", "accept its terms and give a token, see model.token")
    if status == 429:
        hint = "wait a few minutes, or give a token; what is here already is kept"
        return bad("hub-rate-limit", "the hub asks us to slow down", hint)
    if isinstance(error, errors.LocalEntryNotFoundError):
        hint = "check the network or HF_ENDPOINT, or use a directory"
        return bad("hub-offline", "not in the cache, and the hub cannot be reached", hint)
    if not isinstance(error, OSError):
        hint = "check the network or HF_ENDPOINT, and try again; files already here are kept"
        return bad("hub-offline", "the hub cannot be reached, or the connection broke off", hint)
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return bad("hub", reason, "try again; files already here are kept")
