"""The registry that a spec's image is pushed to: whether it answers, and lets this user in."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from tunebuild.errors import TunebuildError
from tunebuild.extras import is_there
from tunebuild.preflight.doctor.finding import Finding, Needs, ok, problem, warning
from tunebuild.preflight.doctor.machine import Machine

NAME = "registry"

_OFFLINE = "push and outputs to it will fail; build and bundle need no registry"
_ACTUAL = {"docker.io": "registry-1.docker.io"}


def check(machine: Machine, needs: Needs | None) -> Iterator[Finding]:
    """Reachable, and logged in."""
    if needs is None:
        return
    if needs.registry is None:
        yield ok("the spec names no registry (image.repository), so there is nothing to log in to")
        return
    host, name = needs.registry
    knows = is_there("urllib3")
    answer = machine.get(f"https://{_ACTUAL.get(host, host)}/v2/", tls=_tls(host) if knows else None)
    if isinstance(answer, str):
        fix = (
            "is it the right name, and does this network reach it? for one on this machine: push --plain-http"
        )
        yield warning(f"{host} does not answer ({answer}): {_OFFLINE}", fix)
        return
    if answer not in (200, 401, 403):
        yield warning(f"{host} answers {answer}, as no registry does: {_OFFLINE}", "check image.repository")
        return
    if not knows:
        yield ok(f"{host} answers; whether this user is logged in was not looked at")
        return
    from tunebuild.registry.credentials import find_credentials

    try:
        credentials = find_credentials(host, name)
    except TunebuildError as error:
        yield problem(
            f"the login to {host} cannot be used: {error.diagnostics[0].message}", error.diagnostics[0].hint
        )
        return
    login = f"docker login {host}, or podman login {host}"
    if credentials.anonymous:
        if answer == 200:
            yield ok(f"{host} answers, and asks for no login")
        else:
            yield warning(f"{host} answers, but nobody is logged in: push will be refused", login)
        return
    yield _tried(host, name, login)


def _tls(host: str) -> ssl.SSLContext:
    from tunebuild.registry.connection import tls_context

    return tls_context(host)


def _tried(host: str, name: str, login: str) -> Finding:
    from tunebuild.registry.connection import Options, Registries
    from tunebuild.registry.transport import Retry

    session = Registries(Options(retry=Retry(attempts=1))).repository(host, name).session
    try:
        session.request("GET", "/v2/", (f"repository:{name}:pull,push",), expected=(200,)).read()
    except TunebuildError as error:
        return problem(f"the login to {host} is refused: {error.diagnostics[0].message}", login)
    return ok(f"{host} answers, and accepts the login")
