"""Chooses the packages of the base layer: what Python needs at run time and nothing that installs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tunebuild.errors import fail
from tunebuild.image.apt.index import Package, read_packages
from tunebuild.image.apt.sources import Repository
from tunebuild.image.apt.version import DebianVersion

#: Python of each suite; other suites are not known to work.
PYTHON_OF_SUITE = {"bookworm": "3.11", "trixie": "3.13"}

# Wanted by packages' installation scripts, or by people at a shell; nothing in the image calls them.
_DROPPED = frozenset(
    """
    debconf debconf-2.0 dpkg openssl install-info libc-bin media-types mime-support netbase perl-base tar
    base-passwd awk mawk gcc-12-base gcc-14-base tzdata tzdata-legacy python3-minimal readline-common
    libreadline8 libreadline8t64 libtinfo6 libncursesw6 libnsl2 libtirpc3 libtirpc3t64 libtirpc-common
    libkrb5-3 libgssapi-krb5-2 libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 krb5-locales
    libdb5.3 libdb5.3t64 openssl-provider-legacy
    """.split()  # noqa: SIM905 - one name a line would be a page
)


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """A package pinned by content."""

    name: str
    version: str
    sha256: str
    size: int
    url: str
    stanza: str


@dataclass(frozen=True, slots=True)
class AptLock:
    """The packages of a base layer.

    Attributes:
        suite: the Debian suite, e.g. ``bookworm``.
        python: version of its Python, e.g. ``3.11``.
        packages: in order of name.
    """

    suite: str
    python: str
    packages: tuple[LockedPackage, ...]

    def to_json(self) -> dict[str, Any]:
        """For a lock file."""
        return asdict(self)


def resolve_apt(repositories: list[Repository], architecture: str = "amd64") -> AptLock:
    """Resolve the base against the mirrors that this machine uses.

    Raises:
        TunebuildError: a mirror cannot be reached or believed, or its suite is not known.
    """
    suite = next((r.suite for r in repositories if r.suite in PYTHON_OF_SUITE), None)
    if suite is None:
        known = ", ".join(PYTHON_OF_SUITE)
        raise fail(
            "suite",
            f"apt is set up with none of the suites {known}",
            "build on such a Debian, or choose another image.base",
            path="image.base",
        )
    # A suite's updates and security fixes are suites of their own; the highest version wins.
    ours = [r for r in repositories if r.suite == suite or r.suite.startswith(f"{suite}-")]
    newest: dict[str, Package] = {}
    for repository in ours:
        for package in read_packages(repository, architecture):
            known_one = newest.get(package.name)
            if known_one is None or DebianVersion(known_one.version) < DebianVersion(package.version):
                newest[package.name] = package
    python = PYTHON_OF_SUITE[suite]
    wanted = ["base-files", "ca-certificates", f"python{python}", f"libpython{python}-stdlib", "libstdc++6"]
    chosen = closure(wanted, newest)
    return AptLock(
        suite,
        python,
        tuple(
            LockedPackage(p.name, p.version, p.sha256, p.size, p.url, p.stanza)
            for p in sorted(chosen, key=lambda p: p.name)
        ),
    )


def closure(wanted: Iterable[str], packages: dict[str, Package]) -> list[Package]:
    """``wanted`` and all they depend on, first alternatives first, without what is dropped on purpose.

    Raises:
        TunebuildError: a package that is needed is in no list.
    """
    chosen: dict[str, Package] = {}
    queue = list(wanted)
    while queue:
        name = queue.pop()
        if name in chosen:
            continue
        package = packages.get(name)
        if package is None:
            raise fail("no-package", f"the mirror has no package {name}", "apt-get update, then try again")
        chosen[name] = package
        for group in package.depends:
            if _DROPPED.isdisjoint(group) and not any(option in chosen for option in group):
                queue.append(next((option for option in group if option in packages), group[0]))
    return list(chosen.values())
