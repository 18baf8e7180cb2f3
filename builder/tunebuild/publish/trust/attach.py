"""What goes with a release: bills of materials, provenance, and signatures where there is a key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunebuild.image.oci.content import Content, make_artifact
from tunebuild.image.sbom import Bill
from tunebuild.publish.release import Release
from tunebuild.publish.trust.signing import Signer
from tunebuild.publish.trust.statement import (
    IN_TOTO,
    PROVENANCE_TYPE,
    provenance_statement,
    signature_statement,
)

CYCLONEDX_TYPE = "application/vnd.cyclonedx+json"
SPDX_TYPE = "application/spdx+json"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a build.

    Attributes:
        name: of the repository.
        cyclonedx, spdx: bills of materials, as the image carries them.
        provenance: as the image carries it.
        bill: what the image is made of.
    """

    name: str
    cyclonedx: bytes
    spdx: bytes
    provenance: Mapping[str, Any]
    bill: Bill


def attested(release: Release, evidence: Evidence, signer: Signer | None = None) -> Release:
    """The release with its referrers. Equal builds and keys give equal bytes.

    Args:
        release: images and artifacts.
        evidence: what is known of the build.
        signer: signs every output and the provenance; without one, the provenance is there unsigned.
    """
    return Release((*release.contents, *_referrers(release, evidence, signer)))


def signed(release: Release, signer: Signer) -> Release:
    """A release with a signature of each output, for one that was built before."""
    return Release((*release.contents, *_signatures(release, signer)))


def _referrers(release: Release, evidence: Evidence, signer: Signer | None) -> Iterator[Content]:
    image = release.contents[0]
    yield make_artifact(CYCLONEDX_TYPE, [(CYCLONEDX_TYPE, evidence.cyclonedx)], image)
    yield make_artifact(SPDX_TYPE, [(SPDX_TYPE, evidence.spdx)], image)
    statement = provenance_statement(release.contents, evidence.name, evidence.provenance, evidence.bill)
    if signer:
        yield signer.attach(statement, image)
        yield from _signatures(release, signer)
    else:
        annotations = (("in-toto.io/predicate-type", PROVENANCE_TYPE),)
        yield make_artifact(IN_TOTO, [(IN_TOTO, statement)], image, annotations)


def _signatures(release: Release, signer: Signer) -> Iterator[Content]:
    for content in release.contents:
        if content.subject is None:
            yield signer.attach(signature_statement(content.digest), content)
