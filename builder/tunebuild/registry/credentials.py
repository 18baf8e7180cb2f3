"""Finds what a registry is logged in with, where ``docker login`` and ``podman login`` leave it."""

from __future__ import annotations

import base64
import binascii
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunebuild.errors import fail

DOCKER_HUB = "docker.io"
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
_HELPER_TIMEOUT = 60  # seconds; some helpers ask a cloud's metadata service
_TOKEN_USER = "<token>"  # noqa: S105 - how a helper says that its secret is an identity token
_NOT_FOUND = ("credentials not found", "no credentials", "not found in native keychain")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What to authenticate with; all empty means anonymously.

    Attributes:
        username, password: for basic authentication, or to fetch a token with.
        identity_token: an OAuth2 refresh token, exchanged for an access token.
        registry_token: a bearer token that is sent as it is.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def anonymous(self) -> bool:
        """Whether there is nothing to authenticate with."""
        return not (self.username or self.password or self.identity_token or self.registry_token)

    @property
    def basic(self) -> str:
        """Value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find_credentials(host: str, repository: str, environment: Mapping[str, str] = os.environ) -> Credentials:
    """The credentials of a repository, anonymous ones if nobody logged in.

    The first file that knows the registry counts: ``$REGISTRY_AUTH_FILE``, Docker's ``config.json``
    (``$DOCKER_CONFIG``), Podman's ``auth.json``.

    Args:
        host: the registry, such as ``registry.example.com:5000``.
        repository: path below it; keys of ``auths`` may name a namespace.
        environment: variables that move the files.

    Raises:
        TunebuildError: ``bad-credentials`` if a file cannot be read, or a helper fails.
    """
    for path in _files(environment):
        if path.is_file() and (found := _in_file(path, host, repository, environment)) is not None:
            return found
    return Credentials()


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    if chosen := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(chosen)
    home = Path(environment.get("HOME") or Path.home())
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    yield Path(f"/run/containers/{os.getuid()}/auth.json")
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"


def _in_file(path: Path, host: str, repository: str, environment: Mapping[str, str]) -> Credentials | None:
    try:
        config = json.loads(path.read_text("utf-8"))
        auths, helpers = config.get("auths") or {}, config.get("credHelpers") or {}
        store = config.get("credsStore") or ""
    except (OSError, ValueError, AttributeError) as error:
        raise fail(
            "bad-credentials", f"cannot read {path}: {error}", "fix the file, or log in again"
        ) from error
    keys = list(_keys(host, repository))
    for key in keys:
        if key in helpers:
            return _ask_helper(helpers[key], key, environment)
    if store and (found := _ask_helper(store, keys[-1], environment)) is not None:
        return found
    for key in keys:
        for spelling in (key, f"https://{key}", f"http://{key}", f"https://{key}/v1/", f"https://{key}/v2/"):
            if spelling in auths:
                return _decode(auths[spelling], path, key)
    return None


def _keys(host: str, repository: str) -> Iterator[str]:
    """What a registry may be called in a file, the most specific name first."""
    names = _HUB_KEYS if host == DOCKER_HUB else (host,)
    parts = repository.split("/")
    for count in range(len(parts), 0, -1):
        yield from (
            f"{name}/{'/'.join(parts[:count])}" for name in (names if host != DOCKER_HUB else (host,))
        )
    # The last one is what a credential store is asked for.
    yield from reversed(names)


def _decode(entry: Any, path: Path, key: str) -> Credentials | None:
    if not isinstance(entry, dict):
        raise fail("bad-credentials", f"{path}: the entry of {key} is no mapping", "log in again")
    username, password = entry.get("username", ""), entry.get("password", "")
    if encoded := entry.get("auth"):
        try:
            decoded = base64.b64decode(encoded, validate=True).decode("utf-8").rstrip("\0")
        except (binascii.Error, UnicodeDecodeError, TypeError) as error:
            message = f"{path}: 'auth' of {key} is not base64"
            raise fail("bad-credentials", message, "log in again") from error
        username, _, password = decoded.partition(":")
    found = Credentials(
        username,
        password,
        entry.get("identitytoken", ""),
        entry.get("registrytoken", ""),
    )
    # Docker leaves an empty entry where a credential store has the secret.
    return None if found.anonymous else found


def _ask_helper(name: str, server: str, environment: Mapping[str, str]) -> Credentials | None:
    program = f"docker-credential-{name}"
    if shutil.which(program, path=environment.get("PATH")) is None:
        hint = f"install {program}, or take it out of credsStore and credHelpers"
        raise fail("bad-credentials", f"credentials of {server} are kept by {program}: not installed", hint)
    try:
        done = subprocess.run(
            [program, "get"],
            input=server,
            capture_output=True,
            text=True,
            timeout=_HELPER_TIMEOUT,
            env=dict(environment),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise fail("bad-credentials", f"{program} did not answer: {error}", "run it by hand") from error
    said = (done.stdout + done.stderr).strip()
    if done.returncode:
        if any(text in said.lower() for text in _NOT_FOUND):
            return None
        last = (said.splitlines() or ["it says nothing"])[-1]
        raise fail("bad-credentials", f"{program} has no credentials for {server}: {last}", "log in again")
    try:
        answer = json.loads(done.stdout)
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError) as error:
        # Not what it printed: that may hold the secret.
        raise fail("bad-credentials", f"{program} printed no credentials", "update it") from error
    return Credentials(identity_token=secret) if user == _TOKEN_USER else Credentials(user, secret)
