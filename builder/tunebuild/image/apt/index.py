"""Fetches a mirror's package lists and believes them only if the distribution signed them."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunebuild.errors import fail
from tunebuild.image.apt.sources import Repository

_TIMEOUT = 30  # seconds for one request


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


def fetch(url: str) -> bytes:
    """One file of a mirror.

    Raises:
        TunebuildError: out of reach, or not there.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:  # noqa: S310 - apt's own sources
            return bytes(response.read())
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise fail(
            "mirror",
            f"cannot fetch {url}: {reason}",
            "is the mirror in /etc/apt reachable from here? Packages fetched before are kept",
            path="image.base",
        ) from None


def read_packages(repository: Repository, architecture: str) -> Iterator[Package]:
    """All packages of a repository, verified from the signature down to the list's own digest."""
    root = f"{repository.uri}/dists/{repository.suite}"
    release = verified(fetch(f"{root}/InRelease"), repository.keyring, f"{root}/InRelease")
    digests = _sha256_section(release)
    for component in repository.components:
        name = f"{component}/binary-{architecture}/Packages.xz"
        if name not in digests:
            continue
        data = fetch(f"{root}/{name}")
        if hashlib.sha256(data).hexdigest() != digests[name]:
            raise fail(
                "mirror-changed",
                f"{root}/{name} is not what its signed index says",
                "the mirror may be updating: try again in a few minutes",
                path="image.base",
            )
        for stanza in lzma.decompress(data).decode("utf-8").split("\n\n"):
            if stanza.strip():
                yield _package(stanza, repository.uri)


def verified(signed: bytes, keyring: Path, shown: str) -> str:
    """The text of a clear-signed index.

    Raises:
        TunebuildError: gpgv or the keyring is missing, or the signature is not good.
    """
    gpgv = shutil.which("gpgv")
    if gpgv is None or not keyring.is_file():
        missing = "gpgv" if gpgv is None else str(keyring)
        hint = "apt-get install gpgv debian-archive-keyring"
        raise fail("no-gpgv", f"cannot check the signature of {shown}: no {missing}", hint, path="image.base")
    with tempfile.TemporaryDirectory() as directory:
        source, text = Path(directory, "InRelease"), Path(directory, "Release")
        source.write_bytes(signed)
        argv = [gpgv, "--keyring", str(keyring), "--output", str(text), str(source)]
        checked = subprocess.run(argv, capture_output=True, text=True, check=False)
        if checked.returncode != 0:
            reason = (checked.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise fail("bad-signature", f"{shown} is not signed by {keyring}: {reason}", path="image.base")
        # Only what gpgv wrote is covered by the signature; text around it is not.
        return text.read_text("utf-8")


def _sha256_section(release: str) -> dict[str, str]:
    digests: dict[str, str] = {}
    inside = False
    for line in release.splitlines():
        if not line.startswith(" "):
            inside = line.startswith("SHA256:")
        elif inside:
            digest, _, name = line.split()
            digests[name] = digest
    return digests


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
