"""Rate limits, and what a browser page of another origin may do."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess

import pytest

from support.endpoint import make_bundle, serving
from tunebuild.serve.api.access import RateLimit

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
ORIGIN = "https://app.example.com"


def test_a_client_has_its_requests_a_minute_and_no_more():
    now = 0.0
    limit = RateLimit(lambda *_: None, 3, lambda: now)
    assert [limit.take(b"a") > 0 for _ in range(4)] == [False, False, False, True]
    assert limit.take(b"a") == pytest.approx(20)
    assert limit.take(b"b") == 0
    now = 20.5
    assert limit.take(b"a") == 0
    assert limit.take(b"a") > 0
    now = 1e6  # a pause saves up no more than a minute's worth
    assert [limit.take(b"a") > 0 for _ in range(4)] == [False, False, False, True]


def test_clients_that_are_remembered_are_bounded():
    limit = RateLimit(lambda *_: None, 1, lambda: 0.0)
    for n in range(20_000):
        limit.take(str(n).encode())
    assert len(limit._clients) <= 10_000


def request(connection, method, path, body=None, **headers):
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    response.read()
    return response


def test_limits_origins_and_tls_of_a_server(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("TUNEBUILD_TLS_CERTIFICATE", str(certificate))
    monkeypatch.setenv("TUNEBUILD_TLS_KEY", str(key))
    monkeypatch.setenv("TUNEBUILD_API_KEYS", "one two")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    renderer = make_bundle(tmp_path / "bundle", cors=(ORIGIN,), requests_per_minute=2)
    with serving(tmp_path / "bundle", renderer, scheme="https") as running:
        trust = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection(
            running.url.removeprefix("https://"), context=trust, timeout=60
        )

        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        allowed = request(connection, "OPTIONS", "/v1/chat/completions", Origin=ORIGIN, **asked)
        assert (allowed.status, allowed.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
        other = request(connection, "OPTIONS", "/v1/models", Origin="https://evil.example", **asked)
        assert "Access-Control-Allow-Origin" not in other.headers

        def ask(key):
            return request(
                connection, "POST", "/v1/chat/completions", BODY, Authorization=f"Bearer {key}", Origin=ORIGIN
            )

        assert [ask("one").status for _ in range(2)] == [200, 200]
        refused = ask("one")
        assert refused.status == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 30
        assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"]
        assert ask("two").status == 200
        # Keys that are none do not fill the memory of keys that are.
        assert ask("three").status == 401
        # The page itself is open: it is where a key is entered.
        page = request(connection, "GET", "/")
        assert page.status == 200
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
