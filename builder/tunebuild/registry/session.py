"""Requests to one registry: authenticated, repeated where that may help, errors in the registry's words."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urljoin, urlsplit

from tunebuild.errors import TunebuildError, fail
from tunebuild.registry.challenge import Challenge, parse_challenges
from tunebuild.registry.credentials import Credentials
from tunebuild.registry.transport import (
    AGAIN,
    Body,
    BytesBody,
    Dropped,
    Reply,
    Retry,
    Transport,
    is_loopback,
    unreachable,
)

Scopes = tuple[str, ...]
"""What a token is asked for, such as ``repository:NAME:pull,push``."""

_CLIENT = "tunebuild"
_SHORTEST_LIFE = 60.0  # seconds; the default of the token specification
_SOON = 10.0  # a token that ends within so many seconds is not used any more


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    until: float


class Session:
    """One registry, one user. Safe for several threads.

    Args:
        root: scheme and host.
        credentials: who asks.
        transport: sends.
        retry: how patient to be.
    """

    def __init__(self, root: str, credentials: Credentials, transport: Transport, retry: Retry) -> None:
        self.root = root
        self.retry = retry
        self._credentials = credentials
        self._transport = transport
        self._tokens: dict[Scopes, _Token] = {}
        self._challenge: Challenge | None = None
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        """The registry's name."""
        return urlsplit(self.root).netloc

    def request(
        self,
        method: str,
        path: str,
        scopes: Scopes,
        *,
        expected: Collection[int],
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        once: bool = False,
    ) -> Reply:
        """Send, with authentication; wait and send again after what may pass.

        Args:
            method, path: ``path`` may be a whole URL, as ``Location`` has it.
            scopes: what it needs.
            expected: statuses to return.
            headers, body: sent.
            once: do not repeat; ``Dropped`` and every status come back to the caller.

        Raises:
            TunebuildError: ``registry-auth``, ``registry-denied``, ``registry-unreachable``, or
                ``registry-error``.
        """
        failures = 0
        while True:
            try:
                reply = self._authorized(method, urljoin(self.root, path), scopes, headers or {}, body)
            except Dropped as error:
                if once:
                    raise
                failures += 1
                if failures >= self.retry.attempts:
                    raise unreachable(error) from error
                self.retry.wait(failures)
                continue
            if reply.status in expected or once:
                return reply
            if reply.status not in AGAIN:
                raise self.error(reply, f"{method} {urlsplit(reply.url).path}")
            failures += 1
            if failures >= self.retry.attempts:
                raise self.error(reply, f"{method} {urlsplit(reply.url).path}")
            reply.read()
            self.retry.wait(failures, reply.retry_after)

    def error(self, reply: Reply, what: str) -> TunebuildError:
        """What to tell a user about an answer."""
        said = _said(reply)
        text = f"{self.host} answered {reply.status} to {what}" + (f": {said}" if said else "")
        if reply.status == 401:
            who = "anonymously" if self._credentials.anonymous else "with the stored credentials"
            hint = f"log in with 'docker login {self.host}' or 'podman login {self.host}'"
            return fail(
                "registry-auth",
                f"{self.host} does not let you in {who}: {what} gave 401. {said}".strip(),
                hint,
            )
        if reply.status == 403:
            return fail("registry-denied", text, "ask for the right to do that, or name another repository")
        if reply.status == 429:
            return fail("registry-busy", text, "it limits how often it is asked; try again later")
        hint = (
            "try again later, or see the registry's log"
            if reply.status >= 500
            else "see the registry's documentation"
        )
        return fail("registry-error", text, hint)

    def _authorized(
        self, method: str, url: str, scopes: Scopes, headers: Mapping[str, str], body: Body | None
    ) -> Reply:
        """Send with the token at hand; after a 401, once more with a fresh one."""
        ours = urlsplit(url).netloc == self.host
        for fresh in (False, True):
            header = self._header(scopes, fresh) if ours else ""
            sent = {**headers, **({"Authorization": header} if header else {})}
            reply = self._transport.send(method, url, sent, body)
            if reply.status != 401 or fresh or not ours:
                return reply
            challenges = parse_challenges(reply.headers.get("www-authenticate", ""))
            usable = [c for c in challenges if c.scheme in ("bearer", "basic")]
            if not usable or (usable[0].scheme == "basic" and (self._credentials.anonymous or header)):
                return reply
            reply.read()
            with self._lock:
                # Bearer first where both are offered: a token is worth less to a thief than a password.
                self._challenge = min(usable, key=lambda c: c.scheme != "bearer")
        raise AssertionError("unreachable")

    def _header(self, scopes: Scopes, fresh: bool) -> str:
        with self._lock:
            challenge, credentials = self._challenge, self._credentials
            if credentials.registry_token:
                return f"Bearer {credentials.registry_token}"
            if challenge is None:
                return ""
            if challenge.scheme == "basic":
                return credentials.basic
            token = self._tokens.get(scopes)
            if fresh or token is None or token.until < time.monotonic() + _SOON:
                # Under the lock: threads that all lack the token shall not all fetch it.
                token = self._tokens[scopes] = self._fetch(challenge, scopes)
            return token.header

    def _fetch(self, challenge: Challenge, scopes: Scopes) -> _Token:
        realm = urljoin(self.root, challenge.parameters.get("realm", ""))
        parts = urlsplit(realm)
        if parts.scheme != "https" and not is_loopback(parts.netloc):
            message = f"{self.host} sends logins to {parts.netloc} without TLS"
            raise fail("registry-auth", message, "nothing was sent; see the registry's operator")
        service = challenge.parameters.get("service", "")
        fields = [("service", service)] if service else []
        fields += [("scope", scope) for scope in scopes]
        credentials = self._credentials
        if credentials.identity_token:
            form = [("service", service), ("client_id", _CLIENT), ("grant_type", "refresh_token")]
            form += [("refresh_token", credentials.identity_token), ("scope", " ".join(scopes))]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            reply = self._ask("POST", realm, headers, BytesBody(urlencode(form).encode()))
        else:
            headers = {} if credentials.anonymous else {"Authorization": credentials.basic}
            separator = "&" if parts.query else "?"
            reply = self._ask("GET", f"{realm}{separator}{urlencode(fields)}", headers, None)
        if reply.status != 200:
            raise self.error(reply, f"a login at {parts.netloc}")
        try:
            answer = json.loads(reply.read())
            token = answer.get("token") or answer["access_token"]
            life = float(answer.get("expires_in") or _SHORTEST_LIFE)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise fail(
                "registry-auth", f"{parts.netloc} answered without a token", "see its operator"
            ) from error
        return _Token(f"Bearer {token}", time.monotonic() + life)

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: Body | None) -> Reply:
        failures = 0
        while True:
            try:
                reply = self._transport.send(method, url, headers, body)
                if reply.status not in AGAIN or failures + 1 >= self.retry.attempts:
                    return reply
                reply.read()
                asked = reply.retry_after
            except Dropped as error:
                asked = None
                if failures + 1 >= self.retry.attempts:
                    raise unreachable(error) from error
            failures += 1
            self.retry.wait(failures, asked)


def _said(reply: Reply) -> str:
    """The registry's own words: ``errors`` as the specification has it, else the beginning of the text."""
    try:
        body = reply.read()[:10_000]
    except Dropped:
        return ""
    try:
        errors = json.loads(body)["errors"]
        return "; ".join(_one(entry) for entry in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body.decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else " ".join(text.split())[:200]


def _one(entry: dict[str, object]) -> str:
    detail = entry.get("detail")
    if isinstance(detail, dict):
        # docker-registry nests what its storage said, such as a full disk.
        inner = detail.get("Err", detail.get("message", ""))
        detail = inner if isinstance(inner, str) else ""
        if isinstance(inner, int):
            detail = {28: "no space left on device"}.get(inner, "")
    parts = [str(entry.get(name, "")) for name in ("code", "message")]
    return " ".join(part for part in (*parts, f"({detail})" if detail else "") if part)
