"""A mirror's lists of packages, verified from the signature down to each list's own digest."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tunebuild.errors import fail
from tunebuild.image.debian.download import Downloads
from tunebuild.image.debian.signature import verified
from tunebuild.image.debian.sources import Repository
from tunebuild.image.debian.version import DebianVersion

_COMPONENT = "main"  # Python and all it needs are free software


@dataclass(frozen=True, slots=True)
class Release:
    """The signed index of one suite.

    Attributes:
        repository: where it came from.
        origin: who makes it, e.g. ``Debian``.
        codename: e.g. ``bookworm-security``, whatever name apt calls it by.
        automatic: false for suites whose packages are only for those who ask, such as backports.
        lists: SHA-256 of the files below it, by path.
    """

    repository: Repository
    origin: str
    codename: str
    automatic: bool
    lists: dict[str, str]


@dataclass(frozen=True, slots=True)
class Package:
    """A binary package in a mirror's list.

    Attributes:
        depends: groups of alternatives that must be there, versions and architectures dropped.
        url: where its ``.deb`` is.
        stanza: its paragraph in the list, for the image's package database.
    """

    name: str
    version: str
    depends: tuple[tuple[str, ...], ...]
    size: int
    sha256: str
    url: str
    stanza: str


class PackageIndex:
    """The packages of several suites. Of 60,000 paragraphs some twenty are ever looked at closely."""

    def __init__(self) -> None:
        self._stanzas: dict[str, list[tuple[str, str]]] = {}

    def add(self, text: str, uri: str) -> None:
        """Add a list's text; ``uri`` is its mirror."""
        for stanza in text.split("\n\n"):
            head, _, _ = stanza.partition("\n")
            if head.startswith("Package: "):
                self._stanzas.setdefault(head[9:], []).append((stanza, uri))

    def newest(self, name: str) -> Package | None:
        """The highest version in any suite: security fixes win by number, not by order."""
        return max(self.all(name), key=lambda p: DebianVersion(p.version), default=None)

    def all(self, name: str) -> list[Package]:
        """Every version in any suite."""
        return [_package(stanza, uri) for stanza, uri in self._stanzas.get(name, ())]

    def __contains__(self, name: str) -> bool:
        return name in self._stanzas


def read_release(repository: Repository, downloads: Downloads) -> Release:
    """Fetch and verify a suite's index.

    Raises:
        TunebuildError: out of reach, not signed by the right key, of another suite, or out of date.
    """
    url = f"{repository.uri}/dists/{repository.suite}/InRelease"
    text = verified(downloads.fetch(url), repository.signed_by, url)
    fields, lists = _parse_release(text)
    names = {fields.get("Suite"), fields.get("Codename")}
    if repository.suite not in names:
        # Signed, but not what was asked for: an old release would bring its old holes along.
        other = " / ".join(sorted(filter(None, names)))
        raise fail("wrong-suite", f"{url} is the index of {other}", "look at the mirror", path="image.base")
    until = fields.get("Valid-Until") if downloads.settings.check_valid_until else None
    if until and parsedate_to_datetime(until) < datetime.now(UTC):
        raise fail(
            "mirror-outdated",
            f"{url} was valid until {until}",
            "the mirror is not kept up, or this machine's clock is wrong; for a snapshot on purpose "
            'set Acquire::Check-Valid-Until "false" in /etc/apt/apt.conf.d, as apt itself needs',
            path="image.base",
        )
    return Release(
        repository,
        fields.get("Origin", ""),
        fields.get("Codename", repository.suite),
        fields.get("NotAutomatic", "no").lower() != "yes",
        lists,
    )


def read_index(releases: list[Release], downloads: Downloads, architecture: str) -> PackageIndex:
    """The packages of all ``releases``.

    Raises:
        TunebuildError: a list cannot be fetched, is missing, or is not what the signed index says.
    """
    index = PackageIndex()
    for release in releases:
        name = f"{_COMPONENT}/binary-{architecture}/Packages.xz"
        root = f"{release.repository.uri}/dists/{release.repository.suite}"
        if name not in release.lists:
            message = f"{root} has no packages for {architecture}"
            raise fail("no-packages", message, "look at the mirror", path="image.base")
        path = downloads.file(f"{root}/{name}", release.lists[name], ".xz")
        index.add(lzma.decompress(path.read_bytes()).decode("utf-8"), release.repository.uri)
    return index


def _parse_release(text: str) -> tuple[dict[str, str], dict[str, str]]:
    fields: dict[str, str] = {}
    lists: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if not line.startswith(" "):
            key, _, value = line.partition(":")
            fields[key] = value.strip()
        elif key == "SHA256":
            digest, _, name = line.split()
            lists[name] = digest
    return fields, lists


def _package(stanza: str, uri: str) -> Package:
    fields: dict[str, str] = {}
    for line in stanza.splitlines():
        if not line.startswith(" "):
            key, _, value = line.partition(":")
            fields[key] = value.strip()
    wanted = ", ".join(fields[k] for k in ("Pre-Depends", "Depends") if k in fields)
    return Package(
        fields["Package"],
        fields["Version"],
        tuple(tuple(map(_bare_name, group.split("|"))) for group in wanted.split(",") if group.strip()),
        int(fields["Size"]),
        fields["SHA256"],
        f"{uri}/{fields['Filename']}",
        stanza.strip() + "\n",
    )


def _bare_name(dependency: str) -> str:
    return dependency.strip().split(" ")[0].split(":")[0]
