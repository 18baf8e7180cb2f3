"""Signs statements with a key, in the bundles that cosign 3 writes and reads.

A bundle is a DSSE envelope (the statement, and an ECDSA signature over its pre-authentication encoding) with
a hint of the key. Keys are ECDSA P-256 in PEM. Nonces come from the message (RFC 6979), so signing again
gives the same bytes. There is no transparency log: cosign is told ``--key`` and
``--insecure-ignore-tlog``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tunebuild.errors import TunebuildError, fail
from tunebuild.image.oci.content import Content, make_artifact
from tunebuild.publish.trust.statement import IN_TOTO, STATEMENT_TYPE
from tunebuild.store.digest import canonical_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PASSWORD = "TUNEBUILD_KEY_PASSWORD"  # noqa: S105 - a variable's name
_MAKE = "openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -out key.pem"
_PUBLIC = "openssl ec -in key.pem -pubout -out key.pub"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key."""

    key: EllipticCurvePrivateKey

    @classmethod
    def load(cls, path: Path) -> Signer:
        """Read a key file; its password, if it has one, is in the environment variable :data:`PASSWORD`.

        Raises:
            TunebuildError: ``bad-key``.
        """
        from cryptography.hazmat.primitives import serialization

        password = os.environ.get(PASSWORD)
        try:
            key = serialization.load_pem_private_key(
                path.read_bytes(), password.encode() if password else None
            )
        except TypeError:
            hint = f"set {PASSWORD} to its password, or unset it for a key that has none"
            raise fail("bad-key", f"{path} and {PASSWORD} do not fit", hint) from None
        except (OSError, ValueError) as error:
            raise fail("bad-key", f"cannot read the key {path}: {error}", f"make one: {_MAKE}") from None
        _check_public(key.public_key(), path)
        return cls(cast("EllipticCurvePrivateKey", key))

    def sign(self, statement: bytes) -> bytes:
        """The bundle of a statement."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        signature = self.key.sign(_encoding(IN_TOTO, statement), algorithm)
        hint = Verifier(self.key.public_key()).hint
        return canonical_json(
            {
                "mediaType": BUNDLE_TYPE,
                "verificationMaterial": {"publicKey": {"hint": hint}},
                "dsseEnvelope": {
                    "payload": base64.b64encode(statement).decode(),
                    "payloadType": IN_TOTO,
                    "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": hint}],
                },
            }
        )

    def attach(self, statement: bytes, subject: Content) -> Content:
        """The bundle as an artifact beside what it is about."""
        annotations = (
            ("dev.sigstore.bundle.content", "dsse-envelope"),
            ("dev.sigstore.bundle.predicateType", str(json.loads(statement)["predicateType"])),
        )
        return make_artifact(BUNDLE_TYPE, [(BUNDLE_TYPE, self.sign(statement))], subject, annotations)


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key."""

    key: EllipticCurvePublicKey

    @classmethod
    def load(cls, path: Path) -> Verifier:
        """Read a public key; of a private one, its public part.

        Raises:
            TunebuildError: ``bad-key``.
        """
        from cryptography.hazmat.primitives import serialization

        try:
            data = path.read_bytes()
            if b"PRIVATE KEY" in data:
                return cls(Signer.load(path).key.public_key())
            key = serialization.load_pem_public_key(data)
        except (OSError, ValueError) as error:
            raise fail(
                "bad-key", f"cannot read the public key {path}: {error}", f"make it: {_PUBLIC}"
            ) from None
        return cls(_check_public(key, path))

    @property
    def hint(self) -> str:
        """What names the key: the digest of its DER form, in base64."""
        from cryptography.hazmat.primitives import serialization

        der = self.key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return base64.b64encode(hashlib.sha256(der).digest()).decode()

    def statement(self, bundle: bytes) -> dict[str, Any]:
        """What a bundle says, if this key signed it.

        Raises:
            TunebuildError: ``bad-signature``.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        kind, payload, signatures = open_bundle(bundle)
        for signature in signatures:
            try:
                self.key.verify(signature, _encoding(kind, payload), ec.ECDSA(hashes.SHA256()))
            except InvalidSignature:
                continue
            return read_statement(payload)
        raise fail("bad-signature", "the key did not make the signature", "is it the right key?")


def _check_public(key: object, path: Path) -> EllipticCurvePublicKey:
    """The key, which is one of the kind that is signed with."""
    from cryptography.hazmat.primitives.asymmetric import ec

    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        hint = f"keys are made with: {_MAKE}; their public parts with: {_PUBLIC}"
        raise fail("bad-key", f"{path} is no ECDSA key of the curve P-256", hint)
    return key


def open_bundle(bundle: bytes) -> tuple[str, bytes, list[bytes]]:
    """Payload type, payload and signatures. Nothing is checked.

    Raises:
        TunebuildError: ``bad-signature``: it is no bundle of a DSSE envelope.
    """
    try:
        envelope = json.loads(bundle)["dsseEnvelope"]
        signatures = [base64.b64decode(s["sig"], validate=True) for s in envelope["signatures"]]
        return envelope["payloadType"], base64.b64decode(envelope["payload"], validate=True), signatures
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise _damaged(error) from None


def read_statement(payload: bytes) -> dict[str, Any]:
    """A statement's JSON.

    Raises:
        TunebuildError: ``bad-signature``: it is none.
    """
    try:
        statement: dict[str, Any] = json.loads(payload)
        if statement["_type"] != STATEMENT_TYPE:
            raise ValueError(f"its type is {statement['_type']!r}")
        return statement
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> TunebuildError:
    return fail("bad-signature", f"not a signed statement: {error}", "sign and push the image again")


def _encoding(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, version 1."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)
