"""The mirrors that an image's packages come from: apt's, and pip's index."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from tunebuild.errors import TunebuildError
from tunebuild.image.debian.settings import read_settings
from tunebuild.image.debian.sources import Repository, read_sources
from tunebuild.preflight.doctor.finding import Finding, Needs, ok, warning
from tunebuild.preflight.doctor.machine import Machine

NAME = "mirrors"

_WITHOUT = "lock and build cannot fetch {what} that the store lacks"


def check(machine: Machine, needs: Needs | None) -> Iterator[Finding]:
    """Each mirror once."""
    yield from _apt(machine)
    yield _pip(machine)


def _apt(machine: Machine) -> Iterator[Finding]:
    without = _WITHOUT.format(what="Debian packages")
    try:
        repositories = read_sources()
    except TunebuildError as error:
        yield warning(f"{error.diagnostics[0].message}: {without}", "set a Debian mirror up in /etc/apt")
        return
    proxies = dict(read_settings().proxies)
    by_host: dict[str, Repository] = {}
    for repository in repositories:
        by_host.setdefault(repository.uri, repository)
    for uri, repository in by_host.items():
        shown = _without_login(uri)
        answer = machine.get(f"{uri.rstrip('/')}/dists/{repository.suite}/InRelease", proxies or None)
        if answer == 200:
            yield ok(f"the Debian mirror {shown} answers")
        else:
            why = answer if isinstance(answer, str) else f"status {answer}"
            fix = "see 'apt-get update', which uses the same mirror and proxy"
            yield warning(f"the Debian mirror {shown} does not answer ({why}): {without}", fix)


def _pip(machine: Machine) -> Finding:
    without = _WITHOUT.format(what="wheels")
    options = ("--timeout", "4", "--retries", "0", "--disable-pip-version-check", "--no-input")
    ran = machine.run(sys.executable, "-m", "pip", "index", "versions", "packaging", *options, timeout=20)
    if ran.code == 0:
        return ok("pip's index answers")
    why = "pip is not installed" if "No module named pip" in ran.err else ran.said
    return warning(
        f"pip's index does not answer ({_without_login(why)}): {without}", "see 'pip config debug'"
    )


def _without_login(text: str) -> str:
    """Addresses without the names and passwords that mirrors may have in them."""
    return re.sub(r"://[^/\s@]+@", "://", text)
