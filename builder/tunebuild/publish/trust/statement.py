"""Statements in the form of in-toto: SLSA provenance, and that of a signature.

Sources: in-toto attestation framework v1, SLSA provenance v1, cosign 3 for the type of a signature. No clock
is read, so the statement about equal builds is equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tunebuild import __version__
from tunebuild.image.oci.content import Content
from tunebuild.image.sbom import Bill
from tunebuild.store import Digest
from tunebuild.store.digest import canonical_json

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"
SIGNATURE_TYPE = "https://sigstore.dev/cosign/sign/v1"
IN_TOTO = "application/vnd.in-toto+json"
"""Media type of a statement that nobody signed."""

_BUILD_TYPE = "urn:tunebuild:build:v1"
_BUILDER = "urn:tunebuild:builder"


def provenance_statement(
    contents: Iterable[Content], name: str, provenance: Mapping[str, Any], bill: Bill
) -> bytes:
    """SLSA provenance of all outputs of a build.

    Args:
        contents: the outputs; each is a subject.
        name: of the repository that they go to.
        provenance: as the image carries it.
        bill: what the image is made of.
    """
    subjects = [
        {"name": f"{name}-{content.output}" if content.output else name, "digest": _bare(content.digest)}
        for content in contents
    ]
    predicate = {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": {"spec": provenance["spec"]},
            "internalParameters": {"inputs": provenance["inputs"]},
            "resolvedDependencies": list(_dependencies(bill)),
        },
        "runDetails": {"builder": {"id": _BUILDER, "version": {"tunebuild": __version__}}},
    }
    return _statement(subjects, PROVENANCE_TYPE, predicate)


def signature_statement(digest: Digest) -> bytes:
    """What cosign signs: a digest and nothing else."""
    return _statement([{"digest": _bare(digest)}], SIGNATURE_TYPE, {})


def _dependencies(bill: Bill) -> Iterable[dict[str, Any]]:
    base = f"{bill.base}@{bill.revision}" if bill.revision else bill.base
    for file in bill.base_files:
        yield {"name": f"{base}/{file.path}", "digest": _bare(file.digest)}
    for name, digest in bill.rows:
        yield {"name": name, "digest": _bare(digest)}
    for url, _, _, pin in bill.packages():
        yield {"uri": url, "digest": {"sha256": pin}}


def _statement(subjects: list[dict[str, Any]], kind: str, predicate: Mapping[str, Any]) -> bytes:
    return canonical_json(
        {"_type": STATEMENT_TYPE, "subject": subjects, "predicateType": kind, "predicate": predicate}
    )


def _bare(digest: Digest) -> dict[str, str]:
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}
