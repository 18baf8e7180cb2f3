"""Walks from an image to what it was made of, and compares all that says the same in two places.

Image, signature, provenance, spec, bills of materials, rows, figures: each step names the next by digest, so
a change anywhere breaks a link, and the link is named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunebuild.errors import Diagnostic, TunebuildError
from tunebuild.image.oci.content import OUTPUT, Content
from tunebuild.image.oci.reading import StoredImage
from tunebuild.image.plan import BUNDLE, PROVENANCE
from tunebuild.image.sbom import CYCLONEDX, SPDX
from tunebuild.publish.trust.attach import CYCLONEDX_TYPE, SPDX_TYPE
from tunebuild.publish.trust.signing import BUNDLE_TYPE, Verifier, open_bundle, read_statement
from tunebuild.publish.trust.statement import IN_TOTO, PROVENANCE_TYPE, SIGNATURE_TYPE
from tunebuild.report.summary import FIGURES
from tunebuild.store import digest_json

_AGAIN = "take the image from where it was published first, or build it again"


@dataclass(slots=True)
class Walk:
    """What was found: a name and a text for each step, and what is wrong.

    Attributes:
        image: what is looked at.
        verifier: the key that signatures must be of; ``None`` leaves them unchecked, and says so.
    """

    image: StoredImage
    verifier: Verifier | None
    lines: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Diagnostic] = field(default_factory=list)

    def run(self) -> list[tuple[str, str]]:
        """Walk to the end; the lines.

        Raises:
            TunebuildError: everything that is wrong.
        """
        referrers = self.image.referrers()
        digests = {"image": self.image.digest} | {
            entry["annotations"][OUTPUT]: entry["digest"]
            for entry in self.image.index
            if OUTPUT in entry.get("annotations", {})
        }
        for name, digest in digests.items():
            self._signature(name, digest, [r for r in referrers if r.subject == digest])
        ours = [r for r in referrers if r.subject == self.image.digest]
        record = self.image.file(f"{BUNDLE}/build/{PROVENANCE}")
        if record is None:
            self.lines.append(("spec", "not in this image"))
        else:
            provenance = json.loads(record)
            self._spec(provenance)
            self._statement(ours, provenance)
            self._rows(provenance)
        self._bills(ours)
        self._figures()
        if self.problems:
            raise TunebuildError(tuple(self.problems))
        return self.lines

    def _signature(self, name: str, digest: str, referrers: list[Content]) -> None:
        bundles = [r for r in referrers if r.artifact_type == BUNDLE_TYPE]
        signatures = list(self._statements(name, bundles, SIGNATURE_TYPE))
        good = [s for s in signatures if digest in _subjects(s)]
        if self.verifier is None:
            note = f"{len(good)}, not checked: give --key" if good else "none"
            self.lines.append(("signature", f"{name}: {note}"))
        elif good:
            self.lines.append(("signature", f"{name}: of this digest, by the key"))
        else:
            self._wrong(
                "unsigned", f"{name} {digest} has no signature of the key", "sign it: push --sign-key"
            )

    def _spec(self, provenance: Mapping[str, Any]) -> None:
        digest = digest_json(provenance["spec"])
        settings = json.loads(self.image.file(f"{BUNDLE}/bundle.json") or b"{}")
        labels = self.image.labels
        for place, found in (
            ("the label org.tunebuild.spec", labels.get("org.tunebuild.spec")),
            ("bundle.json", settings.get("spec_digest")),
        ):
            if found != digest:
                self._wrong("wrong-spec", f"{place} names the spec {found}, the image holds {digest}")
        if settings.get("prompt_digest") != labels.get("org.tunebuild.prompt"):
            self._wrong("wrong-spec", "bundle.json and the label org.tunebuild.prompt name other prompts")
        self.lines.append(("spec", f"{digest} of {provenance['spec']['name']}"))

    def _statement(self, referrers: list[Content], provenance: Mapping[str, Any]) -> None:
        signed = [r for r in referrers if r.artifact_type == BUNDLE_TYPE]
        found = [("signed", s) for s in self._statements("provenance", signed, PROVENANCE_TYPE)]
        for content in referrers:
            if content.artifact_type == IN_TOTO:
                statement = read_statement(_layer(content))
                found.append(("unsigned", statement))
        if not found:
            self.lines.append(("build", "no provenance is attached"))
            return
        if self.verifier is not None and found[0][0] == "unsigned":
            self._wrong("unsigned", "its provenance is not signed by the key", "push again with --sign-key")
        for how, statement in found:
            definition = statement["predicate"]["buildDefinition"]
            if self.image.digest not in _subjects(statement):
                self._wrong("wrong-provenance", "the provenance is about another image")
            if definition["externalParameters"]["spec"] != provenance["spec"]:
                self._wrong("wrong-provenance", "the provenance names another spec than the image holds")
            if definition["internalParameters"]["inputs"] != provenance["inputs"]:
                self._wrong("wrong-provenance", "the provenance names other inputs than the image holds")
            named = {next(iter(d["digest"].values())) for d in definition["resolvedDependencies"]}
            for digest in _row_digests(provenance):
                if digest.removeprefix("sha256:") not in named:
                    self._wrong("wrong-provenance", f"the provenance lacks the rows {digest}")
            self.lines.append(("build", f"SLSA provenance, {how}, {len(named)} dependencies"))

    def _rows(self, provenance: Mapping[str, Any]) -> None:
        for name, digest in zip(provenance["sources"], _row_digests(provenance), strict=True):
            self.lines.append(("rows", f"{digest} {name}"))

    def _bills(self, referrers: list[Content]) -> None:
        for name, kind, path in (("CycloneDX", CYCLONEDX_TYPE, CYCLONEDX), ("SPDX", SPDX_TYPE, SPDX)):
            inside = self.image.file(f"{BUNDLE}/build/{path}")
            attached = [_layer(r) for r in referrers if r.artifact_type == kind]
            if inside is None:
                self.lines.append(("sbom", f"{name}: not in this image"))
                continue
            if any(data != inside for data in attached):
                self._wrong("wrong-sbom", f"the {name} beside the image is not the one in it")
            bill = json.loads(inside)
            count = len(bill.get("components") or bill.get("packages") or ())
            self.lines.append(("sbom", f"{name}, {count} parts{', attached' if attached else ''}"))

    def _figures(self) -> None:
        figures = json.loads(self.image.file(f"{BUNDLE}/build/{FIGURES}") or b"{}")
        for row in figures.get("figures", ()):
            self.lines.append(("figures", f"{row['label']}: {row['tuned']}"))

    def _statements(self, name: str, bundles: list[Content], kind: str) -> Iterator[dict[str, Any]]:
        """Statements of a kind; of the key, if there is one."""
        for bundle in bundles:
            data = _layer(bundle)
            statement = read_statement(open_bundle(data)[1])
            if statement.get("predicateType") != kind:
                continue
            if self.verifier is not None:
                try:
                    statement = self.verifier.statement(data)
                except TunebuildError as error:
                    self._wrong("bad-signature", f"{name}: {error.diagnostics[0].message}", _AGAIN)
                    continue
            yield statement

    def _wrong(self, code: str, message: str, hint: str = _AGAIN) -> None:
        self.problems.append(Diagnostic(code, f"{self.image.place}: {message}", hint))


def _subjects(statement: Mapping[str, Any]) -> set[str]:
    return {f"{a}:{value}" for s in statement["subject"] for a, value in s["digest"].items()}


def _row_digests(provenance: Mapping[str, Any]) -> list[str]:
    return [source["digest"] for source in provenance["inputs"]["data"]["sources"]]


def _layer(content: Content) -> bytes:
    return b"".join(content.blobs[0].read())
