"""Pushes to Debian's docker-registry, undisturbed and disturbed: the digest there is the image's own."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support.registry import Fault, FaultyProxy, Request, TokenGate, docker_registry
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.archive import write_archive, write_layout
from tunebuild.image.oci.content import Content
from tunebuild.image.oci.layer import layer_of_blob
from tunebuild.image.oci.manifest import Image, Runtime, make_image
from tunebuild.image.oci.reference import ImageReference
from tunebuild.publish.memory import PushMemory
from tunebuild.publish.registry import RegistryPublisher
from tunebuild.publish.release import Published, Release
from tunebuild.publish.stored import release_of
from tunebuild.registry import Options, Registries, Repository, Retry
from tunebuild.store import Silent
from tunebuild.store.digest import digest_file

_QUICK = Retry(attempts=4, first=0.01, longest=0.02)


@pytest.fixture
def large(tmp_path: Path) -> Image:
    """An image of one layer of 3 MB that does not repeat itself."""
    path = tmp_path / "layer.tar"
    path.write_bytes(os.urandom(3_000_000))
    layer = layer_of_blob(path, digest_file(path), 3_000_000, name="weights", created_by="random")
    return make_image(ImageReference.parse("x/large:1"), Runtime(("/bin/true",)), (layer,))


def _repository(host: str, name: str = "team/model", retry: Retry = _QUICK) -> Repository:
    return Registries(Options(plain_http=True, retry=retry)).repository(host, name)


def _push(
    host: str,
    image: Image,
    *,
    name: str = "team/model",
    memory: PushMemory | None = None,
    mounts: tuple[str, ...] = (),
    retry: Retry = _QUICK,
) -> Published:
    reference = ImageReference.parse(f"{host}/{name}:v1")
    publisher = RegistryPublisher(
        _repository(host, name, retry), reference, memory or PushMemory(None), mounts
    )
    return publisher.publish(Release((Content.of_image(image),)), Silent())


def _check(host: str, image: Image, name: str = "team/model") -> None:
    """What is there is the image: the manifest under its tag, and every blob byte for byte."""
    repository = _repository(host, name)
    found = repository.get_manifest("v1")
    assert found is not None
    assert (found.digest, found.data) == (image.digest, image.manifest)
    for blob in Content.of_image(image).blobs:
        assert repository.blob(blob.digest) == b"".join(blob.read())


def test_the_registry_has_the_digest_that_was_printed(registry: str, image: Image) -> None:
    published = _push(registry, image)
    assert published.sent == image.size + len(image.config)
    assert published.name == f"{registry}/team/model@{image.digest}"
    _check(registry, image)


def test_a_second_push_sends_no_blob(proxy: FaultyProxy, image: Image) -> None:
    _push(proxy.host, image)
    proxy.requests.clear()
    published = _push(proxy.host, image)
    assert published.sent == 0
    assert published.replaced is None
    assert not proxy.sent("POST") + proxy.sent("PATCH")
    assert all("/manifests/" in request.path for request in proxy.sent("PUT"))


def test_another_repository_is_mounted_from(proxy: FaultyProxy, image: Image, tmp_path: Path) -> None:
    memory = PushMemory(tmp_path / "pushed.json")
    _push(proxy.host, image, memory=memory)
    before = proxy.received
    published = _push(proxy.host, image, name="other/model", memory=memory)
    assert (published.sent, published.mounted) == (0, image.size + len(image.config))
    assert proxy.received - before < 10_000  # manifests
    _check(proxy.host, image, "other/model")


def test_mounting_from_where_nothing_is_sends_the_blob(registry: str, image: Image) -> None:
    assert _push(registry, image, mounts=("nobody/here",)).mounted == 0
    _check(registry, image)


def test_the_tag_that_is_replaced_is_named(registry: str, image: Image, large: Image) -> None:
    _push(registry, image)
    assert _push(registry, large).replaced == image.digest


def test_tags_come_after_everything_that_they_name(proxy: FaultyProxy, image: Image) -> None:
    _push(proxy.host, image)
    writes = [r for r in proxy.requests if r.method in ("POST", "PUT", "PATCH")]
    assert writes[-1].path == "/v2/team/model/manifests/v1"
    assert writes[-2].path == f"/v2/team/model/manifests/{image.digest}"
    assert all("/blobs/" in request.path for request in writes[:-2])


def test_a_failed_push_leaves_the_tag_alone(proxy: FaultyProxy, image: Image, large: Image) -> None:
    _push(proxy.host, image)
    proxy.decide = lambda r: Fault(500) if r.method in ("PUT", "PATCH") and "/blobs/" in r.path else None
    with pytest.raises(TunebuildError) as raised:
        _push(proxy.host, large)
    assert raised.value.diagnostics[0].code == "registry-error"
    proxy.decide = lambda _: None
    _check(proxy.host, image)


def test_an_archive_and_a_layout_are_pushed_like_the_store(
    registry: str, image: Image, tmp_path: Path
) -> None:
    write_archive(image, tmp_path / "image.tar")
    write_layout(image, tmp_path / "layout")
    for number, place in enumerate((tmp_path / "image.tar", tmp_path / "layout")):
        release, name = release_of(place)
        assert str(name) == image.reference.full_name
        repository = _repository(registry, f"stored/{number}")
        reference = ImageReference.parse(f"{registry}/stored/{number}:v1")
        RegistryPublisher(repository, reference, PushMemory(None)).publish(release, Silent())
        _check(registry, image, f"stored/{number}")


def _first(
    matches: Callable[[Request], bool], fault: Fault, times: int = 1
) -> Callable[[Request], Fault | None]:
    lock, left = threading.Lock(), [times]

    def decide(request: Request) -> Fault | None:
        with lock:
            if left[0] and matches(request):
                left[0] -= 1
                return fault
        return None

    return decide


def _is_data(request: Request) -> bool:
    return request.method in ("PUT", "PATCH") and request.length > 1_000_000


@pytest.mark.parametrize("cut", [0, 700_000, 2_999_999])
def test_a_dropped_connection_goes_on_where_it_stopped(proxy: FaultyProxy, large: Image, cut: int) -> None:
    proxy.decide = _first(_is_data, Fault(cut_after=cut))
    _push(proxy.host, large)
    _check(proxy.host, large)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "GET"])
def test_what_may_pass_is_tried_again(proxy: FaultyProxy, large: Image, status: int, method: str) -> None:
    proxy.decide = _first(lambda r: r.method == method, Fault(status), times=2)
    _push(proxy.host, large)
    _check(proxy.host, large)


def test_retry_after_is_obeyed(proxy: FaultyProxy, large: Image) -> None:
    waited: list[float] = []
    proxy.decide = _first(lambda r: r.method == "POST", Fault(429, {"Retry-After": "7"}))
    _push(proxy.host, large, retry=replace(_QUICK, sleep=waited.append))
    assert waited.count(7.0) == 1
    _check(proxy.host, large)


def test_a_registry_that_stays_busy_is_named(proxy: FaultyProxy, large: Image) -> None:
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'
    proxy.decide = lambda r: Fault(429, body=body) if r.method == "POST" else None
    with pytest.raises(TunebuildError, match="slow down") as raised:
        _push(proxy.host, large)
    assert raised.value.diagnostics[0].code == "registry-busy"


@pytest.mark.parametrize("limit", [1 << 20, 200_000, 65_536])
def test_a_proxy_that_limits_requests_gets_pieces(proxy: FaultyProxy, large: Image, limit: int) -> None:
    proxy.decide = lambda r: Fault(413) if r.length > limit else None
    published = _push(proxy.host, large)
    assert published.sent == large.size + len(large.config)
    assert proxy.sent("PATCH")
    _check(proxy.host, large)


def test_a_limit_that_cannot_be_kept_is_said(proxy: FaultyProxy, large: Image) -> None:
    proxy.decide = lambda r: Fault(413) if r.length > 1000 and "/blobs/" in r.path else None
    with pytest.raises(TunebuildError) as raised:
        _push(proxy.host, large)
    assert raised.value.diagnostics[0].code == "registry-limit"


def test_an_upload_that_the_registry_forgot_starts_anew(proxy: FaultyProxy, large: Image) -> None:
    proxy.decide = _first(_is_data, Fault(404, body=b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}'))
    _push(proxy.host, large)
    _check(proxy.host, large)


def test_a_full_disk_is_said(tmp_path: Path, large: Image) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        with docker_registry(disk / "registry") as host:
            with pytest.raises(TunebuildError) as raised:
                _push(host, large)
            assert raised.value.diagnostics[0].code == "registry-error"
            assert "500" in str(raised.value)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _login(home: Path, host: str, entry: dict[str, str]) -> None:
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": {host: entry}}))


def _auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_tokens_are_fetched_with_the_stored_login(proxy: FaultyProxy, large: Image, home: Path) -> None:
    gate = TokenGate(lambda: proxy.host, "robot", "se:cret")
    proxy.decide = gate
    _login(home, proxy.host, _auth("robot", "se:cret"))
    _push(proxy.host, large)
    _check(proxy.host, large)
    assert not any("Basic" in r.headers.get("authorization", "") for r in proxy.requests if "/v2/" in r.path)


def test_tokens_that_end_in_the_middle_are_renewed(proxy: FaultyProxy, large: Image, home: Path) -> None:
    gate = TokenGate(lambda: proxy.host, "robot", "secret", lasting=2)
    proxy.decide = gate
    _login(home, proxy.host, _auth("robot", "secret"))
    _push(proxy.host, large)
    assert len(gate.tokens) > 2
    proxy.decide = lambda _: None
    _check(proxy.host, large)


def test_an_identity_token_is_exchanged(proxy: FaultyProxy, large: Image, home: Path) -> None:
    proxy.decide = TokenGate(lambda: proxy.host, "", "", refresh="refresh-1")
    _login(home, proxy.host, {"identitytoken": "refresh-1"})
    _push(proxy.host, large)
    _check(proxy.host, large)
    assert {r.method for r in proxy.requests if r.path.startswith("/token")} == {"POST"}


def test_basic_authentication(proxy: FaultyProxy, large: Image, home: Path) -> None:
    wanted = "Basic " + base64.b64encode(b"robot:secret").decode()
    challenge = Fault(401, {"WWW-Authenticate": 'Basic realm="registry"'})
    proxy.decide = lambda r: None if r.headers.get("authorization") == wanted else challenge
    _login(home, proxy.host, _auth("robot", "secret"))
    _push(proxy.host, large)
    _check(proxy.host, large)


@pytest.mark.parametrize("entry", [{}, _auth("robot", "wrong")])
def test_a_refused_login_is_an_error_without_the_password(
    proxy: FaultyProxy, large: Image, home: Path, entry: dict[str, str]
) -> None:
    proxy.decide = TokenGate(lambda: proxy.host, "robot", "secret")
    _login(home, proxy.host, entry)
    with pytest.raises(TunebuildError) as raised:
        _push(proxy.host, large)
    assert raised.value.diagnostics[0].code == "registry-auth"
    assert "wrong" not in str(raised.value).replace("wrong password", "")


def test_plain_http_is_for_this_machine_only() -> None:
    with pytest.raises(TunebuildError) as raised:
        Registries(Options(plain_http=True)).repository("registry.example.com", "x")
    assert raised.value.diagnostics[0].code == "plain-http"


def test_a_manifest_that_is_changed_on_the_way_is_noticed(proxy: FaultyProxy, image: Image) -> None:
    other = {"Docker-Content-Digest": "sha256:" + "0" * 64}
    proxy.decide = lambda r: Fault(201, other) if r.method == "PUT" and "/manifests/" in r.path else None
    with pytest.raises(TunebuildError) as raised:
        _push(proxy.host, image)
    assert raised.value.diagnostics[0].code == "digest-changed"


def test_referrers_are_listed_under_the_fallback_tag(registry: str, image: Image) -> None:
    empty = Content.of_image(image)
    referrer = replace(
        empty, manifest=image.manifest + b"\n", subject=image.digest, artifact_type="application/x-test"
    )
    reference = ImageReference.parse(f"{registry}/team/model:v1")
    publisher = RegistryPublisher(_repository(registry), reference, PushMemory(None))
    for _ in range(2):  # a second push does not list it twice
        publisher.publish(Release((empty, referrer)), Silent())
    (listed,) = _repository(registry).referrers(image.digest)
    assert (listed["digest"], listed["artifactType"]) == (referrer.digest, "application/x-test")


@pytest.mark.parametrize("place", ["skopeo", "podman"])
def test_other_programs_push_the_same_digest(
    registry: str, image: Image, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.containers import need_runtime

    write_archive(image, tmp_path / "image.tar")
    target = f"docker://{registry}/by/{place}@{image.digest}"
    if place == "skopeo":
        _run("skopeo", "copy", "--dest-tls-verify=false", f"oci-archive:{tmp_path}/image.tar", target)
    else:
        runtime = need_runtime("podman")
        runtime.load(image)
        try:
            _run("podman", "push", "--tls-verify=false", image.reference.full_name, target)
        finally:
            runtime.remove(image.reference)
    found = _repository(registry, f"by/{place}").get_manifest(image.digest)
    assert found is not None
    assert found.data == image.manifest


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
