"""From an image back to its rows: an honest one passes, and whatever was changed is named."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from support.attested import PROVENANCE, Attested, make_attested
from support.images import image, inputs, make_inputs
from support.registry import docker_registry
from tunebuild.errors import TunebuildError
from tunebuild.image.oci.archive import write_archive, write_layout
from tunebuild.image.oci.content import Content, make_artifact
from tunebuild.image.oci.integrity import check_image
from tunebuild.image.oci.reading import open_archive
from tunebuild.image.oci.reference import ImageReference
from tunebuild.image.plan import ImageInputs
from tunebuild.publish.memory import PushMemory
from tunebuild.publish.registry import RegistryPublisher
from tunebuild.publish.remote import open_remote
from tunebuild.publish.trust.attach import CYCLONEDX_TYPE
from tunebuild.publish.trust.signing import BUNDLE_TYPE, Signer, Verifier, open_bundle
from tunebuild.publish.trust.walk import Walk
from tunebuild.registry import Options, Registries
from tunebuild.store import Silent

__all__ = ["image", "inputs", "make_inputs"]


@pytest.fixture(scope="module")
def made(make_inputs: Callable[[Path], ImageInputs], tmp_path_factory: pytest.TempPathFactory) -> Attested:
    return make_attested(make_inputs(tmp_path_factory.mktemp("attested")))


@pytest.fixture(scope="module")
def archive(made: Attested, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "bundle.tar"
    write_archive(made.outputs.image, path, others=made.others)
    return path


def _walk(path: Path, verifier: Verifier | None) -> list[tuple[str, str]]:
    stored = open_archive(path)
    check_image(stored)
    return Walk(stored, verifier).run()


def _verifier(made: Attested) -> Verifier:
    return Verifier(made.signer.key.public_key())


def _codes(path: Path, verifier: Verifier | None) -> set[str]:
    with pytest.raises(TunebuildError) as caught:
        _walk(path, verifier)
    return {problem.code for problem in caught.value.diagnostics}


def test_archive_layout_and_registry_are_walked_to_the_rows(
    made: Attested, archive: Path, tmp_path: Path
) -> None:
    lines = _walk(archive, _verifier(made))
    assert ("signature", "image: of this digest, by the key") in lines
    assert ("signature", "weights: of this digest, by the key") in lines
    assert ("rows", "sha256:" + "4" * 64 + " faq.jsonl") in lines
    assert ("figures", "loss: 0.1") in lines
    assert [text for name, text in lines if name == "build"] == ["SLSA provenance, signed, 3 dependencies"]
    write_layout(made.outputs.image, tmp_path / "layout", others=made.others)
    assert _walk(tmp_path / "layout", _verifier(made)) == lines
    with docker_registry(tmp_path / "registry") as host:
        repository = Registries(Options(plain_http=True)).repository(host, "team/demo")
        reference = ImageReference.parse(f"{host}/team/demo:v1")
        RegistryPublisher(repository, reference, PushMemory(None)).publish(made.release, Silent())
        (tmp_path / "fetched").mkdir()
        remote = open_remote(repository, reference, tmp_path / "fetched")
        found = Walk(remote, _verifier(made)).run()
        assert found == [line for line in lines if not line[1].startswith(("weights:", "adapter:"))]
        fetched = sum(file.stat().st_size for file in (tmp_path / "fetched").iterdir())
        texts = made.outputs.image.layers[-3:]
        assert fetched < sum(layer.size for layer in texts) + 60_000


def test_each_of_1000_changed_bytes_is_named(made: Attested, archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    target = tmp_path / "changed.tar"
    verifier = _verifier(made)
    # Evenly over the file, and again over what no digest covers: headers, padding and the last files.
    chosen = random.Random(20)
    places = [chosen.randrange(len(data)) for _ in range(500)]
    bare = data.rfind(b"oci-layout") - 512
    places += [chosen.randrange(bare, len(data)) for _ in range(300)]
    places += [(4096 * chosen.randrange(len(data) // 4096) + chosen.randrange(-600, 20)) for _ in range(200)]
    target.write_bytes(data)
    missed = []
    with target.open("r+b") as file:
        for place in places:
            place %= len(data)
            new = bytes([data[place] ^ (1 << chosen.randrange(8))])
            file.seek(place)
            file.write(new)
            file.flush()
            try:
                _walk(target, verifier)
                missed.append(place)
            except TunebuildError as error:
                assert str(target) in error.diagnostics[0].message
            file.seek(place)
            file.write(data[place : place + 1])
    file_is_whole = target.read_bytes() == data
    assert file_is_whole
    assert missed == []


def test_another_key_and_no_signature_are_refused(
    made: Attested, archive: Path, inputs: ImageInputs, tmp_path: Path
) -> None:
    other = Verifier(ec.generate_private_key(ec.SECP256R1()).public_key())
    assert _codes(archive, other) >= {"bad-signature", "unsigned"}
    unsigned = make_attested(inputs, sign=False)
    write_archive(unsigned.outputs.image, tmp_path / "unsigned.tar", others=unsigned.others)
    assert _codes(tmp_path / "unsigned.tar", other) == {"unsigned"}
    lines = _walk(tmp_path / "unsigned.tar", None)
    assert ("signature", "image: none") in lines
    assert any(text.startswith("SLSA provenance, unsigned") for _, text in lines)


@pytest.mark.parametrize("change", ["spec", "inputs", "subject", "rows", "sbom", "moved signature"])
def test_a_swapped_attestation_is_named(made: Attested, tmp_path: Path, change: str) -> None:
    """Every digest is right here, as an attacker would make them: only the links tell."""
    subject = made.release.contents[0]
    kept = [c for c in made.others if c.subject is None]
    forged: list[Content] = []
    for content in (c for c in made.others if c.subject is not None):
        layer = b"".join(content.blobs[0].read())
        if change == "sbom" and content.artifact_type == CYCLONEDX_TYPE:
            forged.append(make_artifact(CYCLONEDX_TYPE, [(CYCLONEDX_TYPE, layer + b"\n")], subject))
            continue
        if content.artifact_type == BUNDLE_TYPE and content.subject == subject.digest:
            statement = json.loads(open_bundle(layer)[1])
            definition = statement["predicate"].get("buildDefinition")
            if definition and change in ("spec", "inputs", "subject", "rows"):
                if change == "spec":
                    definition["externalParameters"]["spec"] = {"name": "other"}
                elif change == "inputs":
                    definition["internalParameters"]["inputs"] = {"data": {"sources": []}}
                elif change == "subject":
                    statement["subject"] = statement["subject"][1:]
                else:
                    definition["resolvedDependencies"].pop(1)
                forged.append(made.signer.attach(json.dumps(statement).encode(), subject))
                continue
            if definition is None and change == "moved signature":
                weights = made.release.contents[1]
                bundle = next(
                    c for c in made.others if c.subject == weights.digest and c.artifact_type == BUNDLE_TYPE
                )
                data = b"".join(bundle.blobs[0].read())
                forged.append(make_artifact(BUNDLE_TYPE, [(BUNDLE_TYPE, data)], subject))
                continue
        forged.append(content)
    write_archive(made.outputs.image, tmp_path / "forged.tar", others=[*kept, *forged])
    expected = {"sbom": "wrong-sbom", "moved signature": "unsigned"}.get(change, "wrong-provenance")
    assert _codes(tmp_path / "forged.tar", _verifier(made)) == {expected}


def test_a_label_or_setting_that_names_another_spec_is_named(inputs: ImageInputs, tmp_path: Path) -> None:
    made = make_attested(inputs)
    (inputs.bundle / "bundle.json").write_text('{"spec_digest": "sha256:0", "prompt_digest": "sha256:p"}')
    from tunebuild.image.plan import assemble, plan_image

    changed = assemble(plan_image(inputs))
    write_archive(changed, tmp_path / "changed.tar")
    assert _codes(tmp_path / "changed.tar", None) == {"wrong-spec"}
    assert made.outputs.image.digest != changed.digest


def test_openssl_accepts_the_signature(made: Attested, tmp_path: Path) -> None:
    """Somebody else's implementation, over the encoding that DSSE prescribes."""
    bundle = next(c for c in made.others if c.artifact_type == BUNDLE_TYPE)
    kind, payload, (signature,) = open_bundle(b"".join(bundle.blobs[0].read()))
    encoded = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    (tmp_path / "message").write_bytes(encoded)
    (tmp_path / "signature").write_bytes(signature)
    public = made.signer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "key.pub").write_bytes(public)
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pub", "-signature", "signature", "message"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Verified OK", done.stderr
    verifier = Verifier.load(tmp_path / "key.pub")
    assert verifier.hint == _verifier(made).hint


def test_signing_again_gives_the_same_bytes(made: Attested) -> None:
    assert made.signer.sign(b'{"_type":"x"}') == made.signer.sign(b'{"_type":"x"}')


def test_a_key_of_another_kind_or_a_wrong_password_is_refused(
    made: Attested, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.pem"
    monkeypatch.delenv("TUNEBUILD_KEY_PASSWORD", raising=False)
    locked = serialization.BestAvailableEncryption(b"right")
    kinds = (ec.generate_private_key(ec.SECP384R1()), made.signer.key)
    for key, encryption in ((kinds[0], serialization.NoEncryption()), (kinds[1], locked)):
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        path.write_bytes(pem)
        with pytest.raises(TunebuildError) as caught:
            Signer.load(path)
        assert caught.value.diagnostics[0].code == "bad-key"
    monkeypatch.setenv("TUNEBUILD_KEY_PASSWORD", "right")
    assert Signer.load(path).key.public_key() == made.signer.key.public_key()
    path.write_text("no key")
    with pytest.raises(TunebuildError, match="cannot read the key"):
        Signer.load(path)


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["P-384", "Ed25519"],
)
@pytest.mark.parametrize("public", [True, False], ids=["public", "private"])
def test_a_signature_is_not_checked_with_a_key_of_another_kind(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, public: bool
) -> None:
    path, pem = tmp_path / "key.pem", serialization.Encoding.PEM
    path.write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        if public
        else key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(TunebuildError, match="is no ECDSA key of the curve P-256"):
        Verifier.load(path)


def test_the_archive_says_what_it_is_about(made: Attested, archive: Path) -> None:
    stored = open_archive(archive)
    assert [c.digest for c in stored.contents()] == [c.digest for c in made.release.contents]
    assert {c.subject for c in stored.referrers()} == {c.digest for c in made.release.contents[:3]}
    assert replace(stored, index=stored.index[:1]).referrers() == ()
    assert PROVENANCE["sources"] == ["faq.jsonl"]
