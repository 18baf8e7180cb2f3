"""TLS: an unknown authority is refused with the way out, and a named one is trusted."""

import ssl
import subprocess
from pathlib import Path

import pytest

from support.registry import FaultyProxy
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.content import Content
from tunebuild.image.oci.manifest import Image
from tunebuild.image.oci.reference import ImageReference
from tunebuild.publish.memory import PushMemory
from tunebuild.publish.registry import RegistryPublisher
from tunebuild.publish.release import Release
from tunebuild.registry import Options, Registries, Retry
from tunebuild.store import Silent


@pytest.fixture
def authority(proxy: FaultyProxy, tmp_path: Path) -> Path:
    """The certificate of the proxy, which speaks TLS from here on."""
    certificate, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    proxy.wrap(context)
    return certificate


def _push(host: str, image: Image, ca_file: Path | None) -> None:
    options = Options(ca_file=ca_file, retry=Retry(attempts=2, first=0.01))
    repository = Registries(options).repository(host, "team/model")
    reference = ImageReference.parse(f"{host}/team/model:v1")
    release = Release((Content.of_image(image),))
    RegistryPublisher(repository, reference, PushMemory(None)).publish(release, Silent())
    assert repository.manifest_digest("v1") == image.digest


def test_a_named_authority_is_trusted(proxy: FaultyProxy, image: Image, authority: Path) -> None:
    _push(proxy.host, image, authority)


def test_an_unknown_authority_is_refused(proxy: FaultyProxy, image: Image, authority: Path) -> None:
    with pytest.raises(TunebuildError, match="--ca-file") as raised:
        _push(proxy.host, image, None)
    assert raised.value.diagnostics[0].code == "registry-tls"
    assert not proxy.requests


def test_a_file_that_holds_no_certificate_is_refused(
    proxy: FaultyProxy, image: Image, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(TunebuildError) as raised:
        _push(proxy.host, image, tmp_path / "ca.pem")
    assert raised.value.diagnostics[0].code == "bad-certificate"
