"""How registries are reached: TLS files, plain HTTP by request, mirrors, and one connection for each host."""

from __future__ import annotations

import os
import ssl
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunebuild.errors import fail
from tunebuild.registry.client import Repository
from tunebuild.registry.credentials import DOCKER_HUB, Credentials, find_credentials
from tunebuild.registry.session import Session
from tunebuild.registry.transport import Retry, Transport, is_loopback

_HUB_HOST = "registry-1.docker.io"
_CERTIFICATES = ("/etc/docker/certs.d", "/etc/containers/certs.d")


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may say about registries.

    Attributes:
        plain_http: speak HTTP without TLS to registries on this machine; others are refused it.
        ca_file: more certificates of authorities, PEM.
        retry: how patient to be.
        mirrors: ``registries.conf`` files, of which the first that exists counts; mirrors serve reading only.
    """

    plain_http: bool = False
    ca_file: Path | None = None
    retry: Retry = field(default_factory=Retry)
    mirrors: tuple[Path, ...] = ()

    @classmethod
    def of_machine(cls, *, plain_http: bool = False, ca_file: Path | None = None) -> Options:
        """With the mirrors that this machine's Podman uses."""
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        chosen = os.environ.get("CONTAINERS_REGISTRIES_CONF")
        files = [Path(chosen)] if chosen else []
        files += [home / "containers" / "registries.conf", Path("/etc/containers/registries.conf")]
        return cls(plain_http, ca_file, mirrors=tuple(files))


class Registries:
    """Makes repositories; those of one host share connections and tokens."""

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self._sessions: dict[tuple[str, str], Session] = {}
        self._transports: dict[str, Transport] = {}

    def repository(self, host: str, name: str) -> Repository:
        """A repository to write to.

        Args:
            host: the registry as an image's name spells it.
            name: path of the repository, ``library/`` included where Docker Hub wants it.

        Raises:
            TunebuildError: ``plain-http`` if that was asked for and the registry is another machine.
        """
        return Repository(self._session(host, name), name)

    def sources(self, host: str, name: str) -> Iterator[Repository]:
        """Repositories to read from: mirrors, then the registry itself."""
        for mirror in _mirrors(self._options.mirrors, f"{host}/{name}"):
            mirror_host, _, mirror_name = mirror.partition("/")
            yield self.repository(mirror_host, mirror_name)
        yield self.repository(host, name)

    def _session(self, host: str, name: str) -> Session:
        credentials = find_credentials(host, name)
        # Namespaces may have credentials of their own, so a session is for one host and user.
        key = (host, credentials.basic if not credentials.anonymous else "")
        if key not in self._sessions:
            self._sessions[key] = self._new_session(host, credentials)
        return self._sessions[key]

    def _new_session(self, host: str, credentials: Credentials) -> Session:
        options = self._options
        if options.plain_http and not is_loopback(host):
            message = f"--plain-http is for registries on this machine, and {host} is none"
            hint = "passwords and images would cross the network readable; set TLS up, and give --ca-file"
            raise fail("plain-http", message, hint)
        scheme = "http" if options.plain_http else "https"
        if host not in self._transports:
            self._transports[host] = Transport(tls_context(host, options.ca_file))
        actual = _HUB_HOST if host == DOCKER_HUB else host
        return Session(f"{scheme}://{actual}", credentials, self._transports[host], options.retry)


def tls_context(host: str, ca_file: Path | None = None) -> ssl.SSLContext:
    """What a registry's certificate is checked with: the system's authorities, and those set up for it.

    Raises:
        TunebuildError: ``bad-certificate``: one of them cannot be read.
    """
    context = ssl.create_default_context()
    directories = [Path(root) / host for root in _CERTIFICATES]
    files = [file for directory in directories for file in sorted(directory.glob("*.crt"))]
    for file in [*files, *([ca_file] if ca_file else [])]:
        try:
            context.load_verify_locations(cafile=file)
        except (OSError, ssl.SSLError) as error:
            raise fail("bad-certificate", f"cannot read {file}: {error}", "it must be a PEM file") from error
    for certificate in (file for directory in directories for file in sorted(directory.glob("*.cert"))):
        try:
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            message = f"cannot use {certificate} and its .key: {error}"
            raise fail("bad-certificate", message, "both must be PEM files") from error
    return context


def _mirrors(files: tuple[Path, ...], name: str) -> Iterator[str]:
    """Where ``registries.conf`` says that ``name`` (host and repository) can be read, too."""
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        return
    try:
        entries: list[dict[str, Any]] = tomllib.loads(path.read_text("utf-8")).get("registry", [])
    except (OSError, ValueError) as error:
        raise fail(
            "bad-mirrors", f"cannot read {path}: {error}", "see containers-registries.conf(5)"
        ) from error
    best, rest = None, ""
    for entry in entries:
        prefix = entry.get("prefix") or entry.get("location", "")
        matches = name == prefix or name.startswith(f"{prefix}/")
        if matches and (best is None or len(prefix) > len(name) - len(rest)):
            best, rest = entry, name[len(prefix) :]
    if best is None:
        return
    if best.get("blocked"):
        raise fail("blocked-registry", f"{path} blocks {name}", "see its entry there")
    for mirror in best.get("mirror", ()):
        yield mirror["location"] + rest
    if (location := best.get("location")) and location + rest != name:
        yield location + rest
