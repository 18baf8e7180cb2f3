"""Logins are found where docker and podman leave them, and secrets are never shown."""

import base64
import json
from pathlib import Path

import pytest

from tunebuild.errors import TunebuildError
from tunebuild.registry.credentials import Credentials, find_credentials

_HOST = "registry.example.com:5000"


def _auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def _config(home: Path, config: object) -> dict[str, str]:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker" / "config.json").write_text(json.dumps(config))
    return {"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin"}


def _helper(home: Path, name: str, script: str) -> None:
    program = home / "bin" / f"docker-credential-{name}"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\nread server\n{script}\n")
    program.chmod(0o755)


def test_nothing_is_anonymous(tmp_path: Path) -> None:
    assert find_credentials(_HOST, "a/b", {"HOME": str(tmp_path)}) == Credentials()


@pytest.mark.parametrize("key", [_HOST, f"https://{_HOST}", f"https://{_HOST}/v1/", f"{_HOST}/team"])
def test_auths_spelled_as_tools_spell_them(tmp_path: Path, key: str) -> None:
    found = find_credentials(_HOST, "team/model", _config(tmp_path, {"auths": {key: _auth("u", "p:q")}}))
    assert (found.username, found.password) == ("u", "p:q")


def test_docker_hub_is_called_otherwise(tmp_path: Path) -> None:
    environment = _config(tmp_path, {"auths": {"https://index.docker.io/v1/": _auth("u", "p")}})
    assert find_credentials("docker.io", "library/x", environment).username == "u"
    assert find_credentials("registry.example.com", "x", environment).anonymous


def test_the_most_specific_entry_counts(tmp_path: Path) -> None:
    auths = {_HOST: _auth("all", "x"), f"{_HOST}/team": _auth("team", "x"), f"{_HOST}/te": _auth("te", "x")}
    environment = _config(tmp_path, {"auths": auths})
    assert find_credentials(_HOST, "team/model", environment).username == "team"
    assert find_credentials(_HOST, "tea", environment).username == "all"


def test_identity_tokens(tmp_path: Path) -> None:
    environment = _config(tmp_path, {"auths": {_HOST: {**_auth("u", ""), "identitytoken": "refresh"}}})
    assert find_credentials(_HOST, "x", environment).identity_token == "refresh"


def test_helpers_and_stores_are_asked_for_the_host(tmp_path: Path) -> None:
    _helper(tmp_path, "one", 'echo "{\\"Username\\": \\"$server\\", \\"Secret\\": \\"s1\\"}"')
    _helper(tmp_path, "two", 'echo "{\\"Username\\": \\"<token>\\", \\"Secret\\": \\"s2\\"}"')
    environment = _config(tmp_path, {"credsStore": "two", "credHelpers": {_HOST: "one"}})
    found = find_credentials(_HOST, "x", environment)
    assert (found.username, found.password) == (_HOST, "s1")
    assert find_credentials("other.example.com", "x", environment).identity_token == "s2"


def test_a_store_without_the_host_is_anonymous(tmp_path: Path) -> None:
    _helper(tmp_path, "none", 'echo "credentials not found in native keychain"; exit 1')
    assert find_credentials(_HOST, "x", _config(tmp_path, {"credsStore": "none"})).anonymous


@pytest.mark.parametrize(
    "config",
    [
        {"auths": {_HOST: {"auth": "!!"}}},
        {"auths": {_HOST: "text"}},
        {"credsStore": "missing"},
        {"credsStore": "broken"},
        ["no mapping"],
    ],
)
def test_what_cannot_be_used_is_an_error_that_shows_no_secret(tmp_path: Path, config: object) -> None:
    _helper(tmp_path, "broken", 'echo "Secret hunter2"')
    with pytest.raises(TunebuildError) as raised:
        find_credentials(_HOST, "x", _config(tmp_path, config))
    assert raised.value.diagnostics[0].code == "bad-credentials"
    assert "hunter2" not in str(raised.value)


def test_podman_logins_are_found(tmp_path: Path) -> None:
    path = tmp_path / "containers" / "auth.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"auths": {_HOST: _auth("u", "p")}}))
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert find_credentials(_HOST, "x", environment).username == "u"


def test_secrets_are_not_in_the_representation() -> None:
    shown = repr(Credentials("user", "hunter2", "hunter3", "hunter4"))
    assert "user" in shown
    assert "hunter" not in shown
