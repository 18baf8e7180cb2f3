"""Bills of materials of an image: CycloneDX 1.6 with the model's part, and SPDX 2.3.

Both are made from what the build pinned (Debian packages, wheels, the base model's files, files of rows), not
found by looking into the image. Equal builds give equal bytes: no clock and no random number is in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from tunebuild import __version__
from tunebuild.lock.spec_lock import Pins, RuntimeLock, split_pin
from tunebuild.store import Digest, TreeFile, digest_json
from tunebuild.store.digest import canonical_json

CYCLONEDX = "sbom.cdx.json"
SPDX = "sbom.spdx.json"
"""Names below ``build/`` of the bundle."""

_CREATED = "1970-01-01T00:00:00Z"
_MODEL, _IMAGE = "model", "image"


@dataclass(frozen=True, slots=True)
class Bill:
    """What an image is made of.

    Attributes:
        name: of the model.
        version: the image's tag.
        license: SPDX expression; empty if the spec has none.
        base: the base model's name.
        revision: its commit; empty for a directory.
        base_files: its files.
        weights: the model's files in the image.
        rows: name and digest of each file of rows.
        method: of the training.
        architecture: ``model_type`` and the model's class.
        runtime: Debian packages and wheels.
    """

    name: str
    version: str
    license: str
    base: str
    revision: str
    base_files: tuple[TreeFile, ...]
    weights: tuple[TreeFile, ...]
    rows: tuple[tuple[str, Digest], ...]
    method: str
    architecture: tuple[str, str]
    runtime: RuntimeLock

    @property
    def digest(self) -> Digest:
        """Of everything in it."""
        return digest_json({**asdict(self), "runtime": self.runtime.model_dump(mode="json")})

    def packages(self) -> Iterator[tuple[str, str, str, str]]:
        """Package URL, name, version and bare SHA-256 of each Debian package and wheel."""
        machine = self.runtime.platform.partition("/")[2]
        for name, version, digest in _pins(self.runtime.packages):
            distribution = f"?arch={machine}&distro=debian-{self.runtime.suite}"
            yield f"pkg:deb/debian/{name}@{quote(version)}{distribution}", name, version, digest
        for name, version, digest in _pins(self.runtime.wheels):
            yield f"pkg:pypi/{name}@{quote(version)}", name, version, digest


def cyclonedx(bill: Bill, figures: Mapping[str, float]) -> bytes:
    """CycloneDX 1.6 JSON.

    Args:
        bill: what the image is made of.
        figures: of the evaluation, by name; they go to the model card.
    """
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.contact import OrganizationalEntity
    from cyclonedx.model.dependency import Dependency
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from packageurl import PackageURL

    def hashed(digest: str) -> list[HashType]:
        return [HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:"))]

    def files(files: tuple[TreeFile, ...], of: str) -> list[Component]:
        return [
            Component(
                name=f.path.rpartition("/")[2],
                type=ComponentType.FILE,
                bom_ref=f"{of}/{f.path.rpartition('/')[2]}",
                hashes=hashed(f.digest),
            )
            for f in files
        ]

    model = Component(
        name=bill.name,
        version=bill.version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_MODEL,
        components=files(bill.weights, _MODEL),
    )
    base = Component(
        name=bill.base,
        version=bill.revision or None,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="base",
        components=files(bill.base_files, "base"),
    )
    rows = [
        Component(name=name, type=ComponentType.DATA, bom_ref=f"rows/{n}/{name}", hashes=hashed(digest))
        for n, (name, digest) in enumerate(bill.rows)
    ]
    packages = [
        Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=url,
            purl=PackageURL.from_string(url),
            hashes=hashed(digest),
            supplier=OrganizationalEntity(name="Debian") if url.startswith("pkg:deb/") else None,
        )
        for url, name, version, digest in bill.packages()
    ]
    image = Component(name=bill.name, version=bill.version, type=ComponentType.CONTAINER, bom_ref=_IMAGE)
    bom = Bom(components=[model, base, *rows, *packages], serial_number=uuid5(NAMESPACE_URL, bill.digest))
    bom.metadata.component = image
    bom.dependencies = [
        Dependency(image.bom_ref, [Dependency(c.bom_ref) for c in (model, *packages)]),
        Dependency(model.bom_ref, [Dependency(c.bom_ref) for c in (base, *rows)]),
    ]
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    found = json.loads(text)
    found["metadata"]["timestamp"] = _CREATED
    tool = {"type": "application", "name": "tunebuild", "version": __version__}
    found["metadata"]["tools"] = {"components": [tool]}
    # The library knows no model cards.
    card = next(c for c in found["components"] if c["bom-ref"] == _MODEL)
    card["modelCard"] = _model_card(bill, figures)
    if bill.license:
        card["licenses"] = [{"expression": bill.license}]
    return canonical_json(found)


def spdx(bill: Bill) -> bytes:
    """SPDX 2.3 JSON."""
    nothing = {"downloadLocation": "NOASSERTION", "filesAnalyzed": False, "copyrightText": "NOASSERTION"}
    nothing |= {"licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION"}
    packages: list[dict[str, Any]] = [
        {
            **nothing,
            "SPDXID": "SPDXRef-image",
            "name": bill.name,
            "versionInfo": bill.version,
            "licenseDeclared": bill.license or "NOASSERTION",
            "primaryPackagePurpose": "CONTAINER",
        }
    ]
    relations = [_relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")]

    def add(spdx_id: str, relation: str, of: str = "SPDXRef-image", **fields: Any) -> None:
        packages.append({**nothing, "SPDXID": spdx_id, **fields})
        relations.append(_relation(of, relation, spdx_id))

    for number, (url, name, version, digest) in enumerate(bill.packages()):
        purl = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}
        add(
            f"SPDXRef-package-{number}",
            "CONTAINS",
            name=name,
            versionInfo=version,
            checksums=[_checksum(digest)],
            externalRefs=[purl],
            primaryPackagePurpose="LIBRARY",
        )
    for number, file in enumerate(bill.weights):
        name = f"models/{file.path.rpartition('/')[2]}"
        add(f"SPDXRef-weights-{number}", "CONTAINS", name=name, checksums=[_checksum(file.digest)])
    for number, file in enumerate(bill.base_files):
        name = f"{bill.base}/{file.path}"
        add(f"SPDXRef-base-{number}", "GENERATED_FROM", name=name, checksums=[_checksum(file.digest)])
    for number, (name, digest) in enumerate(bill.rows):
        add(f"SPDXRef-rows-{number}", "GENERATED_FROM", name=name, checksums=[_checksum(digest)])
    return canonical_json(
        {
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": f"{bill.name} {bill.version}",
            "documentNamespace": f"urn:uuid:{uuid5(NAMESPACE_URL, bill.digest)}",
            "creationInfo": {"created": _CREATED, "creators": [f"Tool: tunebuild-{__version__}"]},
            "packages": packages,
            "relationships": relations,
        }
    )


def _model_card(bill: Bill, figures: Mapping[str, float]) -> dict[str, Any]:
    family, architecture = bill.architecture
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "architectureFamily": family,
            "modelArchitecture": architecture,
            "datasets": [{"ref": f"rows/{n}/{name}"} for n, (name, _) in enumerate(bill.rows)],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                {"type": name, "value": f"{value:.6g}"} for name, value in sorted(figures.items())
            ]
        },
        "properties": [{"name": "tunebuild:method", "value": bill.method}],
    }


def _relation(one: str, relation: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": relation, "relatedSpdxElement": other}


def _checksum(digest: str) -> dict[str, str]:
    return {"algorithm": "SHA256", "checksumValue": digest.removeprefix("sha256:")}


def _pins(pins: Pins) -> Iterator[tuple[str, str, str]]:
    for name, pin in sorted(pins.items()):
        yield (name, *split_pin(pin))
